// Package layers holds the layer table: the layer of each package in the root module, and the rules for imports.
// Imports point only to lower layers, so a package can be read, tested and replaced without the packages that use it.
package layers

import (
	"fmt"
	"slices"
	"strings"
)

// layers is the table, by path below the module's. It may name a package that does not exist yet. A package that it
// does not name is an error.
var layers = map[string]entry{
	"internal/spot":   {layer: 0, kind: pure},
	"internal/change": {layer: 0, kind: pure},

	"internal/eventbridge": {layer: 1},
	"internal/handler":     {layer: 1},
	"internal/aws":         {layer: 1},
	"internal/kube":        {layer: 1},
	"internal/awsadmin":    {layer: 1},
	"internal/castai":      {layer: 1},
	"internal/page":        {layer: 1},
	"internal/spottest":    {layer: 1, kind: testHelper},
	"deploy":               {layer: 1, kind: document},
	"deploy/agent":         {layer: 1, kind: document},
	"iam":                  {layer: 1, kind: pure},
	".":                    {layer: 1, kind: document},

	"internal/app":         {layer: 2},
	"internal/rehearse":    {layer: 2},
	"internal/report":      {layer: 2},
	"internal/savings":     {layer: 2},
	"internal/identitymap": {layer: 2},
	"internal/install":     {layer: 2},

	"internal/agent":     {layer: 3},
	"internal/inventory": {layer: 3},
	"internal/onboard":   {layer: 3},
	"internal/check":     {layer: 3},
	"internal/term":      {layer: 3},
	"lambda":             {layer: 3},

	"cmd/kops-spot": {layer: 4},

	// Build programs are above everything, so nothing can import them.
	"tools/schema": {layer: 5},
	"tools/zip":    {layer: 5},
}

// An entry is a package's row in the table.
type entry struct {
	layer int
	kind  kind
}

// kind is the additional rule for a package.
type kind int

const (
	_ kind = iota // most packages: only the layer matters

	// pure packages import only the standard library, also in tests: decisions must not depend on a vendor's types.
	pure

	// document packages import only embed: users of the documents do not get code with them.
	document

	// testHelper packages are imported only by tests.
	testHelper
)

// A pkg is a package in the output of `go list -json`.
type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string // of tests in the package
	XTestImports []string // of tests beside it, in package name_test
}

// check returns one sentence for each violation.
//
// A test has the layer of the package that it tests, with one exception: it may import the test helpers of any layer.
// So tests of spot can use spottest, one layer up.
func check(module string, table map[string]entry, packages []pkg) []string {
	var violations []string
	report := func(format string, args ...any) { violations = append(violations, fmt.Sprintf(format, args...)) }

	for _, p := range packages {
		name := within(module, p.ImportPath)
		at, ok := table[name]
		if !ok {
			report("%s is not in the layer table", p.ImportPath)
			continue
		}
		for _, path := range p.Imports {
			ours := within(module, path)
			if ours != "" && table[ours].kind == testHelper {
				report("%s imports %s, which is for tests", name, ours)
			}
			if at.kind == document && path != "embed" {
				report("%s imports %s: a package of documents imports embed only", name, path)
			}
		}
		all := slices.Concat(p.Imports, p.TestImports, p.XTestImports)
		slices.Sort(all)
		for _, path := range slices.Compact(all) {
			ours := within(module, path)
			to, known := table[ours]
			switch {
			case ours == "":
				if at.kind == pure && !standard(path) {
					report("%s imports %s: only the standard library is allowed", name, path)
				}
			case !known:
				report("%s imports %s, which is not in the layer table", name, ours)
			case ours == name, to.kind == testHelper:
			case to.layer == at.layer:
				report("%s imports %s, which is in the same layer", name, ours)
			case to.layer > at.layer:
				report("%s (layer %d) imports %s (layer %d): imports must point to lower layers", name, at.layer, ours,
					to.layer)
			}
		}
	}
	return violations
}

// within returns the path below the module's for a package of the module, and "" for others.
func within(module, path string) string {
	if path == module {
		return "."
	}
	name, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	return name
}

// standard reports whether a package belongs to the standard library. Like the go command, it looks for a domain in the
// first part of the path.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}
