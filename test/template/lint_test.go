package template

import (
	"os"
	"path/filepath"
	"testing"
)

// TestCFNLintHasNothingToSay of the template as it is written, nor of what AWS makes of it: some mistakes it sees only there.
func TestCFNLintHasNothingToSay(t *testing.T) {
	for _, finding := range shared.Lint {
		t.Error(finding)
	}
	for name, findings := range shared.LintOf {
		for _, finding := range findings {
			t.Errorf("%s: %s", name, finding)
		}
	}
}

// TestTheParametersOfTheSetsAreTaken: what the other tests look at is what somebody could deploy.
func TestTheParametersOfTheSetsAreTaken(t *testing.T) {
	for name, tmpl := range shared.Templates {
		for _, why := range tmpl.Refuses(sets[name]) {
			t.Errorf("%s: %s", name, why)
		}
	}
}

// TestTheTemplateFitsIntoARequest: CloudFormation takes 51,200 bytes without a bucket.
func TestTheTemplateFitsIntoARequest(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(Root(), "template.yaml"))
	if err != nil || len(b) > 51200 {
		t.Errorf("it has %d bytes: %v", len(b), err)
	}
}
