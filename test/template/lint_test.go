package template

import (
	"os"
	"path/filepath"
	"testing"
)

// TestCFNLint checks the template as written and as transformed: some errors are visible only after the transform.
func TestCFNLint(t *testing.T) {
	for _, finding := range shared.Lint {
		t.Error(finding)
	}
	for name, findings := range shared.LintOf {
		for _, finding := range findings {
			t.Errorf("%s: %s", name, finding)
		}
	}
}

// TestParameterSetsAreAccepted: the other tests use parameters that can be deployed.
func TestParameterSetsAreAccepted(t *testing.T) {
	for name, tmpl := range shared.Templates {
		for _, why := range tmpl.Refuses(sets[name]) {
			t.Errorf("%s: %s", name, why)
		}
	}
}

// TestTemplateFitsIntoARequest: without a bucket, CloudFormation accepts 51,200 bytes.
func TestTemplateFitsIntoARequest(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(Root(), "template.yaml"))
	if err != nil || len(b) > 51200 {
		t.Errorf("it has %d bytes: %v", len(b), err)
	}
}
