package install

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/castai/kops-spot/iam"
)

// Spec is what is to be deployed.
type Spec struct {
	iam.Values // where; of the function nothing

	Code       []byte            // the zip that Lambda runs
	Overrides  map[string]string // parameters that somebody has set
	Discovered map[string]string // parameters that were found out; they count where nobody has ever said otherwise

	// Refresh says that what was found out counts also where the stack has something else.
	Refresh bool
}

// StackName is what a cluster's stack is called, by SAM's hand or by ours.
func StackName(cluster string) string { return iam.FunctionName(cluster) }

// bucket is where the code of an account's functions is kept, for one region. No cluster's name is at its beginning.
func (w Spec) bucket() string { return "cast-kops-code-" + w.Account + "-" + w.Region }

// folder is where the bucket has the code of one cluster's function.
func (w Spec) folder() string { return iam.Name(w.Cluster) + "/" }

// key is where the bucket has the code. Other code has another key: by that CloudFormation knows.
func (w Spec) key() string {
	sum := sha256.Sum256(w.Code)
	return w.folder() + hex.EncodeToString(sum[:8]) + ".zip"
}

// bucketPolicy lets nobody in without TLS.
func (w Spec) bucketPolicy() string {
	on := "arn:" + w.Partition + ":s3:::" + w.bucket()
	return `{"Version": "2012-10-17", "Statement": [{"Sid": "OverTLSAlone", "Effect": "Deny", "Principal": "*", "Action": "s3:*", ` +
		`"Resource": ["` + on + `", "` + on + `/*"], "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]}`
}

// parameters are the stack's: what was said now, before what was said or found out before, before what was found out now. A
// stack keeps what it has been given until somebody says otherwise.
func (w Spec) parameters(t *Template, before map[string]string) map[string]string {
	all, first, second := map[string]string{}, w.Discovered, before
	if w.Refresh {
		first, second = before, w.Discovered
	}
	for _, from := range []map[string]string{first, second, w.Overrides, {"Cluster": w.Cluster, "ShortName": iam.Name(w.Cluster)}} {
		maps.Copy(all, from)
	}
	maps.DeleteFunc(all, func(name, value string) bool {
		byDefault, known := t.Defaults[name]
		_, given := w.Overrides[name]
		return !given && (!known || byDefault != nil && *byDefault == value) // an older template's, or nothing said
	})
	return all
}

// stays tells of what was found out and does not count, since the stack has been given something else.
func (w Spec) keptParameters(before map[string]string) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(w.Discovered)) {
		has, was := before[name]
		if _, given := w.Overrides[name]; was && !given && !w.Refresh && has != w.Discovered[name] && cmp.Or(has, w.Discovered[name]) != "" {
			names = append(names, name)
		}
	}
	return names
}

// ParseSet reads parameters in the form NAME=VALUE.
func ParseSet(t *Template, set []string) (map[string]string, error) {
	given := map[string]string{}
	var errs []error
	for _, one := range set {
		name, value, ok := strings.Cut(one, "=")
		_, known := t.Defaults[name]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("--set %s: it is NAME=VALUE", one))
		case name == "Cluster" || name == "ShortName":
			errs = append(errs, fmt.Errorf("--set %s: it follows from the cluster (--cluster): leave it out", name))
		case !known:
			errs = append(errs, fmt.Errorf("--set %s: there is no such parameter: there are %s", name, strings.Join(slices.Sorted(maps.Keys(t.Defaults)), ", ")))
		default:
			given[name] = value
		}
	}
	return given, errors.Join(errs...)
}
