package layers

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/castai/kops-spot"

// TestLayers checks the root module. Run it with -count=1: the test cache does not see the other module.
func TestLayers(t *testing.T) {
	packages, err := list("../..")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(packages, func(p pkg) bool { return p.ImportPath == module+"/internal/spot" }) {
		t.Errorf("internal/spot is not among the %d packages found: is this the right module?", len(packages))
	}
	for _, violation := range check(module, layers, packages) {
		t.Error(violation)
	}
}

// TestFunctionDependencies: the function does not link packages that only the command line needs.
func TestFunctionDependencies(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "./lambda")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	for _, path := range []string{module + "/internal/onboard", module + "/internal/savings", "k8s.io/client-go/dynamic",
		"go.yaml.in/yaml/v3", "gonum.org/v1/plot"} {
		if slices.Contains(linked, path) {
			t.Errorf("the function links %s", path)
		}
	}
	if !slices.Contains(linked, module+"/internal/spot") {
		t.Errorf("the function links %d packages, but not internal/spot: is this the right module?", len(linked))
	}
}

func list(dir string) ([]pkg, error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var packages []pkg
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, err
		}
		packages = append(packages, p)
	}
}

// TestCheck has a case for each rule, kept and violated.
func TestCheck(t *testing.T) {
	table := map[string]entry{
		"base":       {layer: 0, kind: pure},
		"base/sub":   {layer: 0},
		"middle":     {layer: 1},
		"other":      {layer: 1},
		"helper":     {layer: 1, kind: testHelper},
		"helper/sub": {layer: 1, kind: testHelper},
		"docs":       {layer: 1, kind: document},
		"top":        {layer: 2},
	}
	for _, c := range []struct {
		name string
		pkg  pkg
		want string
	}{
		{"down one layer", code("m/top", "m/middle", "m/other"), ""},
		{"down two layers", code("m/top", "m/base"), ""},
		{"up", code("m/middle", "m/top"), "middle (layer 1) imports top (layer 2): imports must point to lower layers"},
		{"up from the base", code("m/base", "m/middle"),
			"base (layer 0) imports middle (layer 1): imports must point to lower layers"},
		{"sideways", code("m/middle", "m/other"), "middle imports other, which is in the same layer"},
		{"sideways to a package below in the tree", code("m/base", "m/base/sub"),
			"base imports base/sub, which is in the same layer"},

		{"not in the table", code("m/unknown"), "m/unknown is not in the layer table"},
		{"not in the table, though its parent is", code("m/middle/drawer"),
			"m/middle/drawer is not in the layer table"},
		{"the module's root, not in the table", code("m"), "m is not in the layer table"},
		{"imports one that is not in the table", code("m/top", "m/unknown"),
			"top imports unknown, which is not in the layer table"},
		{"imports the module's root", code("m/top", "m"), "top imports ., which is not in the layer table"},
		{"another module with a similar name", code("m/middle", "more.example/m/top", "mm/top"), ""},

		{"another module", code("m/middle", "k8s.io/api/core/v1"), ""},
		{"pure, with the standard library", code("m/base", "context", "encoding/json"), ""},
		{"pure, with another module", code("m/base", "k8s.io/api/core/v1"),
			"base imports k8s.io/api/core/v1: only the standard library is allowed"},
		{"pure, a test with another module", tests("m/base", "example.com/assert"),
			"base imports example.com/assert: only the standard library is allowed"},
		{"pure, an external test with another module", testsBeside("m/base", "example.com/assert"),
			"base imports example.com/assert: only the standard library is allowed"},

		{"documents", code("m/docs", "embed"), ""},
		{"documents with code", code("m/docs", "embed", "strings"),
			"docs imports strings: a package of documents imports embed only"},
		{"documents' tests", tests("m/docs", "strings", "sigs.k8s.io/yaml"), ""},

		{"a test down", tests("m/middle", "m/base"), ""},
		{"a test up", tests("m/middle", "m/top"),
			"middle (layer 1) imports top (layer 2): imports must point to lower layers"},
		{"a test sideways", tests("m/middle", "m/other"), "middle imports other, which is in the same layer"},
		{"an external test, of the package itself", testsBeside("m/middle", "m/middle"), ""},
		{"an external test, up", testsBeside("m/middle", "m/top"),
			"middle (layer 1) imports top (layer 2): imports must point to lower layers"},
		{"an external test, sideways", testsBeside("m/middle", "m/other"),
			"middle imports other, which is in the same layer"},

		{"a helper in a test above", tests("m/top", "m/helper"), ""},
		{"a helper in a test in its layer", tests("m/middle", "m/helper"), ""},
		{"a helper in a test below", testsBeside("m/base", "m/helper"), ""},
		{"a helper's own tests", testsBeside("m/helper", "m/helper", "m/helper/sub"), ""},
		{"a helper in a program", code("m/top", "m/helper"), "top imports helper, which is for tests"},
		{"a helper in a helper", code("m/helper", "m/helper/sub"), "helper imports helper/sub, which is for tests"},
		{"a helper's own imports go down too", code("m/helper", "m/top"),
			"helper (layer 1) imports top (layer 2): imports must point to lower layers"},

		{"one violation for one import", pkg{ImportPath: "m/middle", Imports: []string{"m/top"},
			TestImports: []string{"m/top"}, XTestImports: []string{"m/top"}},
			"middle (layer 1) imports top (layer 2): imports must point to lower layers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := strings.Join(check("m", table, []pkg{c.pkg}), "\n"); got != c.want {
				t.Errorf("violations %q; want %q", got, c.want)
			}
		})
	}
}

func TestCheckEveryPackage(t *testing.T) {
	got := check("m", map[string]entry{"middle": {}}, []pkg{code("m/middle"), code("m/unknown"), code("m/unknown2")})
	if want := []string{"m/unknown is not in the layer table",
		"m/unknown2 is not in the layer table"}; !slices.Equal(got, want) {
		t.Errorf("violations %q; want %q", got, want)
	}
}

func code(path string, imports ...string) pkg { return pkg{ImportPath: path, Imports: imports} }

func tests(path string, imports ...string) pkg { return pkg{ImportPath: path, TestImports: imports} }

func testsBeside(path string, imports ...string) pkg {
	return pkg{ImportPath: path, XTestImports: imports}
}
