package install

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Parameters are those that the stack has; nil if there is no stack, or none that could be changed.
func (r *Run) Parameters(ctx context.Context) (map[string]string, error) {
	s, err := r.settled(ctx)
	if err != nil || s == nil || s.Dead() {
		return nil, err
	}
	return s.Parameters, nil
}

// Export is a script of aws commands that would do what a first run does. code is the file with the function's code.
func (r *Run) Export(code string) (string, error) {
	w := r.Want
	parameters := w.parameters(r.Template, nil)
	if err := w.check(r.Template, parameters); err != nil {
		return "", err
	}
	template, err := r.Template.Packaged(w.bucket(), w.key())
	if err != nil {
		return "", err
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# The function's code, in a private bucket of the account's.")
	configuration := ""
	if w.Region != "us-east-1" {
		configuration = " --create-bucket-configuration LocationConstraint=" + w.Region
	}
	line("aws s3api create-bucket --bucket %s --region %s%s", w.bucket(), w.Region, configuration)
	line("aws s3api put-public-access-block --bucket %s --region %s --public-access-block-configuration "+
		"BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true", w.bucket(), w.Region)
	line("aws s3api put-bucket-policy --bucket %s --region %s --policy '%s'", w.bucket(), w.Region, w.bucketPolicy())
	line("aws s3 cp %s s3://%s/%s --region %s", code, w.bucket(), w.key(), w.Region)
	line("\n# The function and all that belongs to it.")
	line("cat >%s.yaml <<'EOF'\n%sEOF", StackName(w.Cluster), template)
	line("aws cloudformation deploy --stack-name %s --template-file %s.yaml --region %s --capabilities CAPABILITY_NAMED_IAM CAPABILITY_AUTO_EXPAND "+
		"--parameter-overrides \\", StackName(w.Cluster), StackName(w.Cluster), w.Region)
	var all []string
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		all = append(all, fmt.Sprintf("    '%s=%s'", name, strings.ReplaceAll(parameters[name], "'", `'\''`)))
	}
	line("%s", strings.Join(all, " \\\n"))
	return b.String(), nil
}
