package template

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	shipped "github.com/castai/kops-spot"
	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/install"
)

// TestRegions: CloudFormation knows all types of the exported template in each region. Those that lack API destinations
// get a template without them.
func TestRegions(t *testing.T) {
	parsed, err := install.ParseTemplate(shipped.Template)
	must(t, err)
	deployment := func(region string) *install.Deployment {
		values := iam.Values{Cluster: cluster, Partition: "aws", Region: region, Account: Account}
		return &install.Deployment{Template: parsed, Spec: install.Spec{Values: values}}
	}
	export := func(region string) []byte {
		e, err := deployment(region).Export("dir", nil)
		must(t, err)
		return e.Files["template.yaml"]
	}
	lacking := regexp.MustCompile(`E3006 .* does not exist in '([^']+)'`)
	var short []string
	for _, m := range lacking.FindAllStringSubmatch(lint(t, export("eu-west-1"), "ALL_REGIONS"), -1) {
		if !slices.Contains(short, m[1]) {
			short = append(short, m[1])
		}
	}
	if !slices.Contains(short, "us-gov-west-1") {
		t.Fatalf("cfn-lint finds missing types in %q", short)
	}
	for _, region := range short {
		if strings.Contains(string(export(region)), "AWS::Events::ApiDestination") {
			t.Errorf("the template for %s has API destinations", region)
		}
	}
	d := deployment(short[0])
	d.Spec.Overrides = map[string]string{"NotifyUrl": "json+https://example.com/secret"}
	if _, err := d.Export("dir", nil); err == nil || !strings.Contains(err.Error(), "no API destinations in "+short[0]) || strings.Contains(err.Error(), "secret") {
		t.Errorf("with NotifyUrl: %v", err)
	}
	if found := lint(t, export(short[0]), short...); strings.Contains("\n"+found, "\nE") {
		t.Errorf("%s", found)
	}
}

// lint returns cfn-lint's findings.
func lint(t *testing.T, text []byte, regions ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "template.yaml")
	must(t, os.WriteFile(file, text, 0o600))
	found, _ := exec.Command("cfn-lint", slices.Concat([]string{"--template", file, "--regions"}, regions)...).CombinedOutput() // it fails with findings
	if strings.Contains(string(found), "Traceback") {
		t.Fatalf("cfn-lint: %s", found)
	}
	return string(found)
}
