package install

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/castai/kops-spot/iam"
)

// Spec is what to deploy.
type Spec struct {
	iam.Values // without those of the function

	Code       []byte            // the function's zip
	Overrides  map[string]string // parameters of --set
	Discovered map[string]string // parameters with a lower precedence than the stack's

	Tags map[string]string // of the bucket, if it is new, and of the stack, which gives them to its resources

	// Refresh gives the discovered parameters precedence over the stack's.
	Refresh bool
}

// StackName returns the name of a cluster's stack.
func StackName(cluster string) string { return iam.FunctionName(cluster) }

// bucket returns the name of the bucket for the code of all functions in an account and region.
func (w Spec) bucket() string { return "cast-kops-code-" + w.Account + "-" + w.Region }

// folder returns the prefix of the keys of a cluster.
func (w Spec) folder() string { return iam.Name(w.Cluster) + "/" }

// key returns the key of the code. It contains a hash, so that CloudFormation sees a change of the code.
func (w Spec) key() string {
	return w.folder() + shortHash(w.Code) + ".zip"
}

func shortHash(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8])
}

// bucketPolicy denies requests without TLS.
func (w Spec) bucketPolicy() string {
	on := "arn:" + w.Partition + ":s3:::" + w.bucket()
	return `{"Version": "2012-10-17", "Statement": [{"Sid": "OverTLSAlone", "Effect": "Deny", "Principal": "*", ` +
		`"Action": "s3:*", "Resource": ["` + on + `", "` + on + `/*"], ` +
		`"Condition": {"Bool": {"aws:SecureTransport": "false"}}}]}`
}

// StackParameters returns the stack's parameters. The overrides have precedence over the stack's current values, and
// those over the discovered ones, so that a stack keeps a value until somebody changes it.
func (w Spec) StackParameters(t *Template, before map[string]string) map[string]string {
	all, first, second := map[string]string{}, w.Discovered, before
	if w.Refresh {
		first, second = before, w.Discovered
	}
	fixed := map[string]string{"Cluster": w.Cluster, "ShortName": iam.Name(w.Cluster)}
	for _, from := range []map[string]string{first, second, w.Overrides, fixed} {
		maps.Copy(all, from)
	}
	maps.DeleteFunc(all, func(name, value string) bool {
		byDefault, known := t.Defaults[name]
		_, given := w.Overrides[name]
		return !given && (!known || byDefault != nil && *byDefault == value) // unknown: from an older template
	})
	return all
}

// PublicParameters returns the stack's parameters without the secret ones, which no output may show. It is an error if
// one of them was given.
func (w Spec) PublicParameters(t *Template, before map[string]string) (map[string]string, error) {
	all := w.StackParameters(t, before)
	for name := range t.Secret {
		if w.Overrides[name] != "" {
			return nil, fmt.Errorf("--set %s: the output would show this secret: omit it here, and set it when you deploy", name)
		}
		delete(all, name)
	}
	return all, nil
}

// keptParameters returns the names of discovered parameters for which the stack has another value.
func (w Spec) keptParameters(before map[string]string) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(w.Discovered)) {
		has, was := before[name]
		if _, given := w.Overrides[name]; was && !given && !w.Refresh && has != w.Discovered[name] {
			names = append(names, name)
		}
	}
	return names
}

// ParseSet parses the values of --set: NAME=VALUE, or NAME=file:PATH if the value is a secret. No error has a value: it
// may be a secret with a misspelt name.
func ParseSet(t *Template, set []string) (map[string]string, error) {
	given := map[string]string{}
	var errs []error
	for _, one := range set {
		name, value, ok := strings.Cut(one, "=")
		_, known := t.Defaults[name]
		switch {
		case !parameterName.MatchString(name):
			errs = append(errs, errors.New("--set: use NAME=VALUE"))
		case !ok:
			errs = append(errs, fmt.Errorf("--set %s: use NAME=VALUE", name))
		case name == "Cluster" || name == "ShortName":
			errs = append(errs, fmt.Errorf("--set %s: omit it: it follows from --cluster", name))
		case !known:
			errs = append(errs, fmt.Errorf("--set %s: unknown parameter: use one of %s", name,
				strings.Join(slices.Sorted(maps.Keys(t.Defaults)), ", ")))
		case t.Secret[name] && value != "":
			secret, err := readSecret(name, value)
			given[name], errs = secret, append(errs, err)
		default:
			given[name] = value
		}
	}
	return given, errors.Join(errs...)
}

var parameterName = regexp.MustCompile(`^[A-Za-z0-9]+$`)

// readSecret reads the value of a secret parameter from file:PATH, because other users of the computer can read a
// command line.
func readSecret(name, value string) (string, error) {
	path, is := strings.CutPrefix(value, "file:")
	if !is {
		return "", fmt.Errorf("--set %s: this is a secret: write it to a file, and use %s=file:PATH", name, name)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w: choose another file", name, err)
	}
	text := strings.TrimSpace(string(content))
	if text == "" {
		return "", fmt.Errorf("reading %s: %s is empty: to remove the value, use --set %s=", name, path, name)
	}
	return text, nil
}

// CheckCode refuses a zip that Lambda would accept but could not run.
func CheckCode(code []byte, architecture string) error {
	r, err := zip.NewReader(bytes.NewReader(code), int64(len(code)))
	if err != nil {
		return fmt.Errorf("the code is not a zip file: %w", err)
	}
	f, err := r.Open("bootstrap")
	if err != nil {
		return errors.New("the code has no file bootstrap: build it with make dist")
	}
	defer f.Close()
	content, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("reading the code: %w", err)
	}
	program, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("the code's bootstrap is not a Linux program: %w", err)
	}
	machines := map[string]elf.Machine{"arm64": elf.EM_AARCH64, "x86_64": elf.EM_X86_64}
	if want, ok := machines[architecture]; ok && program.Machine != want {
		return fmt.Errorf("the code is not built for Architecture=%s: change that with --set Architecture", architecture)
	}
	return nil
}
