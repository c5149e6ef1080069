// Package iam holds the IAM policy documents. What stands in angle brackets is to be filled in.
package iam

import _ "embed"

// Handler is what the function's role may do: what its code can call, and nothing else. The last two statements are for
// the log-ins that need them, and one of them at the most.
//
//go:embed handler.json
var Handler []byte
