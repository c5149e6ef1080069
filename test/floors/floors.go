// Package floors holds the plan of the house: on which floor each package of the root module stands, and the rules that
// keep it standing. Imports only go down, so that what decides can be read and tested without the clouds it decides
// about, and a package can be replaced without touching those beside it.
package floors

import (
	"fmt"
	"slices"
	"strings"
)

// house is the plan, by path below the module's. A room may stand here before its package does; a package without a
// room is a complaint.
var house = map[string]room{
	"internal/spot":   {floor: 0, kind: pure},
	"internal/change": {floor: 0, kind: pure},

	"internal/eventbridge": {floor: 1},
	"internal/awscloud":    {floor: 1},
	"internal/kube":        {floor: 1},
	"internal/iamcloud":    {floor: 1},
	"internal/castai":      {floor: 1},
	"internal/sim":         {floor: 1, kind: testHelper},
	"internal/sim/simtest": {floor: 1, kind: testHelper},
	"deploy":               {floor: 1, kind: document},
	"iam":                  {floor: 1, kind: pure},
	".":                    {floor: 1, kind: document},

	"internal/app":       {floor: 2},
	"internal/rehearsal": {floor: 2},
	"internal/onboard":   {floor: 2},
	"internal/install":   {floor: 2},
	"internal/term":      {floor: 2},

	"internal/chain": {floor: 3},
	"lambda":         {floor: 3},

	"cmd/kops-spot": {floor: 4},

	// Programs the house is built with stand outside: above everything, so that nothing can lean on them.
	"tools/schema": {floor: 5},
	"tools/zip":    {floor: 5},
}

// A room is a package's place.
type room struct {
	floor int
	kind  kind
}

// kind is what holds for a package besides its floor.
type kind int

const (
	_ kind = iota // most packages: only the floor matters

	// pure packages import the standard library only, in their tests too: no vendor's types in the words the project
	// thinks in.
	pure

	// document packages import embed only: they are read by people and by other programs, and whatever carries the
	// documents must not carry code along.
	document

	// testHelper packages are imported by tests only. In a program that ships they would be a made-up world that looks
	// like the real one.
	testHelper
)

// A pkg is a package as `go list -json` tells it.
type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string // of tests in the package
	XTestImports []string // of tests beside it, in package name_test
}

// check returns each breach of the rules as a sentence.
//
// Tests keep to the floor of the package they test, with one liberty: they may import the test helpers of any floor.
// So a test of spot, in package spot_test, can run in sim's world one floor up.
func check(module string, house map[string]room, packages []pkg) []string {
	var complaints []string
	complain := func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }

	for _, p := range packages {
		name := within(module, p.ImportPath)
		at, ok := house[name]
		if !ok {
			complain("%s has no place in the house", p.ImportPath)
			continue
		}
		for _, path := range p.Imports {
			ours := within(module, path)
			if ours != "" && house[ours].kind == testHelper {
				complain("%s imports %s, which is for tests", name, ours)
			}
			if at.kind == document && path != "embed" {
				complain("%s imports %s: a package of documents imports embed only", name, path)
			}
		}
		all := slices.Concat(p.Imports, p.TestImports, p.XTestImports)
		slices.Sort(all)
		for _, path := range slices.Compact(all) {
			ours := within(module, path)
			to, known := house[ours]
			switch {
			case ours == "":
				if at.kind == pure && !standard(path) {
					complain("%s imports %s: it keeps to the standard library", name, path)
				}
			case !known:
				complain("%s imports %s, which has no place in the house", name, ours)
			case ours == name, to.kind == testHelper:
			case to.floor == at.floor:
				complain("%s imports %s, which is on the same floor", name, ours)
			case to.floor > at.floor:
				complain("%s, on floor %d, imports %s, on floor %d: imports only go down", name, at.floor, ours, to.floor)
			}
		}
	}
	return complaints
}

// within returns the path below the module's of a package of ours, and nothing of any other.
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

// standard says whether a package is the standard library's, as the go command does: other modules' paths begin with
// a domain.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}
