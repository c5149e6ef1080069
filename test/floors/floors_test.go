package floors

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

// TestHouse holds the root module to the plan. Run it with -count=1: the test cache does not see the other module.
func TestHouse(t *testing.T) {
	packages, err := list("../..")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(packages, func(p pkg) bool { return p.ImportPath == module+"/internal/spot" }) {
		t.Errorf("internal/spot is not among the %d packages found: is this the right module?", len(packages))
	}
	for _, complaint := range check(module, house, packages) {
		t.Error(complaint)
	}
}

// TestTheFunctionIsSmall: what only the command line needs is not linked into what Lambda runs.
func TestTheFunctionIsSmall(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "./lambda")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	for _, path := range []string{module + "/internal/onboard", "k8s.io/client-go/dynamic", "go.yaml.in/yaml/v3"} {
		if slices.Contains(linked, path) {
			t.Errorf("the function links %s", path)
		}
	}
	if !slices.Contains(linked, module+"/internal/spot") {
		t.Errorf("the function links %d packages, and not internal/spot: is this the right module?", len(linked))
	}
}

// list returns the packages of the module in a directory.
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

// TestCheck breaks and keeps each rule in a made-up house.
func TestCheck(t *testing.T) {
	plan := map[string]room{
		"cellar":      {floor: 0, kind: pure},
		"cellar/wine": {floor: 0},
		"kitchen":     {floor: 1},
		"bath":        {floor: 1},
		"puppets":     {floor: 1, kind: testHelper},
		"puppets/new": {floor: 1, kind: testHelper},
		"shelf":       {floor: 1, kind: document},
		"attic":       {floor: 2},
	}
	for _, c := range []struct {
		name string
		pkg  pkg
		want string
	}{
		{"down one floor", code("m/attic", "m/kitchen", "m/bath"), ""},
		{"down two floors", code("m/attic", "m/cellar"), ""},
		{"up", code("m/kitchen", "m/attic"), "kitchen, on floor 1, imports attic, on floor 2: imports only go down"},
		{"up from the cellar", code("m/cellar", "m/kitchen"), "cellar, on floor 0, imports kitchen, on floor 1: imports only go down"},
		{"sideways", code("m/kitchen", "m/bath"), "kitchen imports bath, which is on the same floor"},
		{"sideways to a package below in the tree", code("m/cellar", "m/cellar/wine"), "cellar imports cellar/wine, which is on the same floor"},

		{"no place", code("m/garage"), "m/garage has no place in the house"},
		{"no place, though what is around has one", code("m/kitchen/drawer"), "m/kitchen/drawer has no place in the house"},
		{"no place at the module's root", code("m"), "m has no place in the house"},
		{"imports one without a place", code("m/attic", "m/garage"), "attic imports garage, which has no place in the house"},
		{"imports the module's root", code("m/attic", "m"), "attic imports ., which has no place in the house"},
		{"another module of a like name", code("m/kitchen", "more.example/m/attic", "mm/attic"), ""},

		{"another module", code("m/kitchen", "k8s.io/api/core/v1"), ""},
		{"pure, with the standard library", code("m/cellar", "context", "encoding/json"), ""},
		{"pure, with another module", code("m/cellar", "k8s.io/api/core/v1"), "cellar imports k8s.io/api/core/v1: it keeps to the standard library"},
		{"pure, a test with another module", tests("m/cellar", "example.com/assert"), "cellar imports example.com/assert: it keeps to the standard library"},
		{"pure, a test beside it with another module", testsBeside("m/cellar", "example.com/assert"), "cellar imports example.com/assert: it keeps to the standard library"},

		{"documents", code("m/shelf", "embed"), ""},
		{"documents with code", code("m/shelf", "embed", "strings"), "shelf imports strings: a package of documents imports embed only"},
		{"documents' tests", tests("m/shelf", "strings", "sigs.k8s.io/yaml"), ""},

		{"a test down", tests("m/kitchen", "m/cellar"), ""},
		{"a test up", tests("m/kitchen", "m/attic"), "kitchen, on floor 1, imports attic, on floor 2: imports only go down"},
		{"a test sideways", tests("m/kitchen", "m/bath"), "kitchen imports bath, which is on the same floor"},
		{"a test beside it, of the package itself", testsBeside("m/kitchen", "m/kitchen"), ""},
		{"a test beside it, up", testsBeside("m/kitchen", "m/attic"), "kitchen, on floor 1, imports attic, on floor 2: imports only go down"},
		{"a test beside it, sideways", testsBeside("m/kitchen", "m/bath"), "kitchen imports bath, which is on the same floor"},

		{"a helper in a test above", tests("m/attic", "m/puppets"), ""},
		{"a helper in a test on its floor", tests("m/kitchen", "m/puppets"), ""},
		{"a helper in a test below", testsBeside("m/cellar", "m/puppets"), ""},
		{"a helper's own tests", testsBeside("m/puppets", "m/puppets", "m/puppets/new"), ""},
		{"a helper in a program", code("m/attic", "m/puppets"), "attic imports puppets, which is for tests"},
		{"a helper in a helper", code("m/puppets", "m/puppets/new"), "puppets imports puppets/new, which is for tests"},
		{"a helper's own imports go down too", code("m/puppets", "m/attic"), "puppets, on floor 1, imports attic, on floor 2: imports only go down"},

		{"one complaint for one import", pkg{ImportPath: "m/kitchen", Imports: []string{"m/attic"}, TestImports: []string{"m/attic"}, XTestImports: []string{"m/attic"}},
			"kitchen, on floor 1, imports attic, on floor 2: imports only go down"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := strings.Join(check("m", plan, []pkg{c.pkg}), "\n"); got != c.want {
				t.Errorf("complaints %q; want %q", got, c.want)
			}
		})
	}
}

func TestCheckEveryPackage(t *testing.T) {
	got := check("m", map[string]room{"kitchen": {}}, []pkg{code("m/kitchen"), code("m/garage"), code("m/shed")})
	if want := []string{"m/garage has no place in the house", "m/shed has no place in the house"}; !slices.Equal(got, want) {
		t.Errorf("complaints %q; want %q", got, want)
	}
}

func code(path string, imports ...string) pkg { return pkg{ImportPath: path, Imports: imports} }

func tests(path string, imports ...string) pkg { return pkg{ImportPath: path, TestImports: imports} }

func testsBeside(path string, imports ...string) pkg {
	return pkg{ImportPath: path, XTestImports: imports}
}
