// Package kopsspot holds the one definition of all that is put into an account, so that the binary carries what it
// installs.
package kopsspot

import _ "embed"

// Template is the SAM template.
//
//go:embed template.yaml
var Template []byte
