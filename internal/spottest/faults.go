package spottest

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/spot"
)

// FaultRequest is a kind of request of an interruption, and what must happen if it always fails. The node has an
// ordinary pod and one whose budget never allows its eviction.
type FaultRequest struct {
	Request   string // verb and resource, or the operation of AWS, or one of the names below
	Always    string // what happens if it always fails; empty for Done
	Tolerates bool   // nothing is missing if it is carried out and only its response is lost
}

// Requests of a FaultRequest that are not one kind of request.
const (
	AnyKubernetes = "any Kubernetes request" // such as without a token
	AnyAWS        = "any AWS request"
	AnyRequest    = "any request"
	CASTAIEvent   = "CAST AI event"
)

// FaultRequests are the requests of an interruption.
var FaultRequests = []FaultRequest{
	{Request: "get nodes", Always: "incomplete, detached"},
	{Request: "patch nodes", Always: "drained, not cordoned, detached", Tolerates: true},
	{Request: "list pods", Always: "incomplete, cordoned, detached"},
	{Request: "watch pods"},
	{Request: "create pods/eviction"}, // at last, the pods are force-deleted
	{Request: "patch pods/status"},
	{Request: "delete pods", Always: "incomplete, cordoned, detached", Tolerates: true},
	{Request: "create events"},
	{Request: "DescribeInstances", Always: "drained, cordoned, not detached"},
	{Request: "DescribeAutoScalingInstances", Always: "drained, cordoned, not detached"},
	{Request: "CreateTags"},
	{Request: "DetachInstances", Always: "drained, cordoned, not detached", Tolerates: true},
	{Request: CASTAIEvent, Always: "drained, cordoned, not notified", Tolerates: true},
	{Request: AnyKubernetes, Always: "incomplete, detached"},
	{Request: AnyAWS, Always: "drained, cordoned, not detached"},
	{Request: AnyRequest, Always: "error"},
}

// Done is the result if everything was done.
func (r FaultRequest) Done() string {
	if r.Request == CASTAIEvent {
		return "drained, cordoned, notified"
	}
	return "drained, cordoned, detached"
}

// Want returns the result of a fault. Any fault that passes leaves everything done. lost is whether the request is
// carried out.
func (r FaultRequest) Want(always, lost bool) string {
	if !always || r.Always == "" || lost && r.Tolerates {
		return r.Done()
	}
	return r.Always
}

// Actual is the state of the cluster and the account after an interruption.
type Actual struct {
	Cordoned, Replaced bool
	Pods               []string // on the node
}

// Judge returns the result of an interruption, and where the outcome or error differs from the actual state.
func (r FaultRequest) Judge(out spot.Outcome, err error, is Actual) (result string, wrong []string) {
	expect := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	if err != nil {
		expect(!is.Cordoned && !is.Replaced, "an error, though something was changed: %+v", is)
		for _, part := range []string{"finding the node", "from EC2"} {
			expect(strings.Contains(err.Error(), part), "the error does not contain %q: %v", part, err)
		}
		return "error", wrong
	}
	no := map[bool]string{false: "not "}
	result = string(out.Result)
	if out.Cordon != nil {
		result += ", " + no[is.Cordoned] + "cordoned"
		expect(is.Cordoned || out.Cordon.At == nil, "reported as cordoned: %+v", out.Cordon)
	}
	reported := out.Replacement != nil && out.Replacement.At != nil
	if r.Request == CASTAIEvent {
		result += ", " + no[is.Replaced] + "notified"
		expect(is.Replaced || !reported, "reported as notified: %+v", out.Replacement)
	} else {
		result += ", " + no[is.Replaced] + "detached"
		expect(is.Replaced == reported, "detached %v, reported: %+v", is.Replaced, out.Replacement)
	}
	for _, p := range out.Pods {
		exists := slices.Contains(is.Pods, p.Name)
		expect(exists == (p.Status == spot.PodStillRunning), "pod exists: %v, reported: %+v", exists, p)
	}
	expect(out.Result != spot.Drained || len(is.Pods) == 0, "reported as drained with %q", is.Pods)
	return result, wrong
}

// IsAWS reports whether the request is an operation of AWS.
func (r FaultRequest) IsAWS() bool { return IsEC2(r.Request) || IsAutoScaling(r.Request) }

// FaultTable is a table of the results of faults, for docs/faults.md.
type FaultTable struct{ rows []*faultRow }

// faultRow is the result of one or more faults of a request, by duration.
type faultRow struct {
	request  string
	faults   []string
	results  []string
	from, to []float64 // seconds
}

// Add adds the result of the next duration of a fault.
func (t *FaultTable) Add(r FaultRequest, fault, result string, seconds float64) {
	if n := len(t.rows); n == 0 || t.rows[n-1].request != r.Request || t.rows[n-1].faults[0] != fault {
		t.rows = append(t.rows, &faultRow{request: r.Request, faults: []string{fault}})
	}
	row := t.rows[len(t.rows)-1]
	row.results = append(row.results, strings.Replace(result, r.Done(), "done", 1))
	row.from, row.to = append(row.from, seconds), append(row.to, seconds)
}

// String returns the rows in Markdown. Faults with the same results share a row.
func (t *FaultTable) String() string {
	var merged []*faultRow
	for _, row := range t.rows {
		i := slices.IndexFunc(merged, func(r *faultRow) bool {
			return r.request == row.request && slices.Equal(r.results, row.results)
		})
		if i < 0 {
			merged = append(merged, row)
			continue
		}
		m := merged[i]
		m.faults = append(m.faults, row.faults...)
		for i := range m.from {
			m.from[i], m.to[i] = min(m.from[i], row.from[i]), max(m.to[i], row.to[i])
		}
	}
	var b strings.Builder
	for _, r := range merged {
		fmt.Fprintf(&b, "| `%s` | %s", r.request, strings.Join(r.faults, "; "))
		for i, result := range r.results {
			seconds := fmt.Sprintf("%.0f", r.from[i])
			if to := fmt.Sprintf("%.0f", r.to[i]); to != seconds {
				seconds += " to " + to
			}
			fmt.Fprintf(&b, " | %s, %s s", result, seconds)
		}
		b.WriteString(" |\n")
	}
	return b.String()
}

// WriteSection replaces the text of a section of a Markdown file, up to the next heading of the same level.
func WriteSection(file, title, text string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	heading := "\n## " + title + "\n"
	before, after, found := strings.Cut(string(b), heading)
	if !found {
		return fmt.Errorf("%s has no section %q", file, title)
	}
	if i := strings.Index(after, "\n## "); i >= 0 {
		text += after[i:]
	}
	return os.WriteFile(file, []byte(before+heading+"\n"+text), 0o644)
}
