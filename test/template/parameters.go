package template

import "github.com/castai/kops-spot/internal/sam"

// Refuses returns why CloudFormation would not begin with these parameters; nothing if it would.
func (t *Template) Refuses(given Parameters) []string {
	return (&sam.Template{Parameters: t.Parameters, Rules: t.Rules}).Refuses(given)
}
