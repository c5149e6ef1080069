# Deploys the stack and the manifests that `kops-spot install --export` has written; docs/install.md explains how.
# This module was never validated or applied: Terraform is not among the test tools.

terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = ">= 2.20"
    }
  }
}

variable "export" {
  description = "The directory that kops-spot install --export has written."
  type        = string
}

variable "bucket" {
  description = "An existing private bucket in the cluster's region, for the code and the template."
  type        = string
}

variable "secrets" {
  description = "Values of the secret stack parameters, which the export omits, by name: always set them."
  type        = map(string)
  default     = {}
  sensitive   = true
}

variable "manifests" {
  description = "Whether to apply the objects, too. Every plan then needs access to the cluster."
  type        = bool
  default     = false
}

data "aws_s3_bucket" "code" {
  bucket = var.bucket
}

locals {
  exported   = file("${var.export}/template.yaml")
  key        = regex("CodeUri: s3://[^/]+/(.+)", local.exported)[0] # with a hash of the code
  template   = replace(local.exported, "/CodeUri: s3:.+/", "CodeUri: s3://${var.bucket}/${local.key}")
  list       = jsondecode(file("${var.export}/parameters.json")) # for secrets of the stack: without values
  parameters = { for p in local.list : p.ParameterKey => p.ParameterValue if can(p.ParameterValue) }
  files      = yamldecode(file("${var.export}/kustomization.yaml")).resources
  objects    = [for o in split("\n---\n", join("\n---\n", [for f in local.files : file("${var.export}/${f}")])) : yamldecode(o)]
}

resource "kubernetes_manifest" "access" {
  for_each = { for o in local.objects : "${o.kind}/${o.metadata.name}" => o if var.manifests }
  manifest = each.value
}

resource "aws_s3_object" "code" {
  bucket = var.bucket
  key    = local.key
  source = "${var.export}/${basename(local.key)}"

  lifecycle { create_before_destroy = true } # until the stack is updated, a rollback needs the old one
}

resource "aws_s3_object" "template" {
  bucket  = var.bucket
  key     = "${dirname(local.key)}/template-${substr(sha256(local.template), 0, 16)}.yaml"
  content = local.template

  lifecycle { create_before_destroy = true }
}

resource "aws_cloudformation_stack" "function" {
  name         = "cast-kops-${local.parameters.ShortName}" # kops-spot finds it by this name
  template_url = "https://${data.aws_s3_bucket.code.bucket_regional_domain_name}/${aws_s3_object.template.key}"
  parameters   = merge(local.parameters, var.secrets)
  capabilities = ["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]
  depends_on   = [aws_s3_object.code, kubernetes_manifest.access] # the function needs its access from the first event
}
