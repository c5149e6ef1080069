package testenv

// MappingsCRD is a minimal version of the manifest that kOps installs with the authenticator
// (https://github.com/kubernetes-sigs/aws-iam-authenticator/blob/v0.7.5/deploy/iamidentitymapping.yaml).
const MappingsCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: iamidentitymappings.iamauthenticator.k8s.aws
spec:
  group: iamauthenticator.k8s.aws
  scope: Cluster
  names: {kind: IAMIdentityMapping, plural: iamidentitymappings, singular: iamidentitymapping}
  versions:
    - name: v1alpha1
      served: true
      storage: true
      subresources: {status: {}}
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              required: [arn, username]
              properties:
                arn: {type: string}
                username: {type: string}
                groups: {type: array, items: {type: string}}
            status:
              type: object
              properties:
                canonicalARN: {type: string}
                userID: {type: string}
`
