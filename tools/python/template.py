"""Transforms the SAM template as CloudFormation does, and lints it before and after. It needs no account and no network.

It reads lines {"template": path, "code": s3://…, "region": …, "lint": bool, "sets": {name: {parameter: value}}} from
standard input. For each, it writes a line {"lint": findings, "sets": {name: {"template": …, "lint": findings}}}. If the
template cannot be transformed, the set has only "refused" with the reason.
"""

import copy
import json
import logging
import sys
import warnings

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

import boto3
from cfnlint.api import lint
from cfnlint.decode import cfn_yaml
from samtranslator.parser.parser import Parser
from samtranslator.public.exceptions import InvalidDocumentException
from samtranslator.translator.translator import Translator


def findings(text, region):
    """Returns the findings of cfn-lint."""
    return [f"{m.rule.id} line {m.linenumber}: {m.message}" for m in lint(text, regions=[region])]


def package(template, code):
    """Sets the location of the functions' code, as `sam package` does."""
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = code


def transform(template, parameters, region):
    """Returns the transformed template for these parameters."""
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name=region))
    return translator.translate(copy.deepcopy(template), dict(parameters))


def answer(request):
    """Returns the result for a request."""
    region, linted = request["region"], request.get("lint", False)
    with open(request["template"]) as f:
        text = f.read()
    template = json.loads(json.dumps(cfn_yaml.loads(text)))
    package(template, request["code"])
    result = {"lint": findings(text, region) if linted else [], "sets": {}}
    for name, parameters in request["sets"].items():
        try:
            plain = transform(template, parameters, region)
        except InvalidDocumentException as e:
            result["sets"][name] = {"refused": e.message + " " + " ".join(c.message for c in e.causes)}
            continue
        result["sets"][name] = {
            "template": plain,
            "lint": findings(json.dumps(plain), region) if linted else [],
        }
    return result


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
