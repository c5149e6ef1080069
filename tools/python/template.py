"""Transforms the SAM template as CloudFormation does, and lints it before and after. It needs no account and no network.

It reads from standard input {"template": a path, "code": s3://…, "region": …, "lint": whether to, "sets": {name: {parameter:
value}}}, and writes {"lint": findings, "sets": {name: {"template": …, "lint": findings}}}. Where the template cannot be
transformed, "refused" says why instead.
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
    """Returns what is to be said against a template, as sentences."""
    return [f"{m.rule.id} line {m.linenumber}: {m.message}" for m in lint(text, regions=[region])]


def package(template, code):
    """Puts in where the functions' code is, as `sam package` does when it has put it there."""
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = code


def transform(template, parameters, region):
    """Returns the template without the transform, for these parameters."""
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name=region))
    return translator.translate(copy.deepcopy(template), dict(parameters))


def main():
    asked = json.load(sys.stdin)
    region, linted = asked["region"], asked.get("lint", False)
    with open(asked["template"]) as f:
        text = f.read()
    template = json.loads(json.dumps(cfn_yaml.loads(text)))
    package(template, asked["code"])
    told = {"lint": findings(text, region) if linted else [], "sets": {}}
    for name, parameters in asked["sets"].items():
        try:
            plain = transform(template, parameters, region)
        except InvalidDocumentException as e:
            told["sets"][name] = {"refused": e.message + " " + " ".join(c.message for c in e.causes)}
            continue
        told["sets"][name] = {
            "template": plain,
            "lint": findings(json.dumps(plain), region) if linted else [],
        }
    json.dump(told, sys.stdout)


main()
