// Package identitymap maps IAM identities to Kubernetes users for aws-iam-authenticator: it inspects the mappings of each
// backend, plans changes, applies them and checks the result.
package identitymap
