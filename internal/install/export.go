package install

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/castai/kops-spot/iam"
)

// Export is a script of aws commands that would do what a first run does. code is the file with the function's code.
func (r *Run) Export(code string) (string, error) {
	w := r.Want
	parameters := w.parameters(r.Template, nil)
	key := w.key()
	template, err := r.Template.packaged(w.bucket(), key)
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
	line("aws s3api head-bucket --bucket %s --region %s 2>/dev/null || aws s3api create-bucket --bucket %s --region %s%s", w.bucket(), w.Region, w.bucket(), w.Region, configuration)
	line("aws s3api put-bucket-tagging --bucket %s --region %s --tagging 'TagSet=[{Key=%s,Value=%s}]'", w.bucket(), w.Region, iam.TagManagedBy, iam.ManagedBy)
	line("aws s3api put-public-access-block --bucket %s --region %s --public-access-block-configuration "+
		"BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true", w.bucket(), w.Region)
	line("aws s3api put-bucket-policy --bucket %s --region %s --policy '%s'", w.bucket(), w.Region, w.bucketPolicy())
	line("aws s3 cp %s s3://%s/%s --region %s", code, w.bucket(), key, w.Region)
	line("\n# The function and all that belongs to it.")
	line("cat >%s.yaml <<'EOF'\n%sEOF", StackName(w.Cluster), template)
	line("aws cloudformation deploy --stack-name %s --template-file %s.yaml --region %s --capabilities CAPABILITY_NAMED_IAM CAPABILITY_AUTO_EXPAND "+
		"--parameter-overrides \\", StackName(w.Cluster), StackName(w.Cluster), w.Region)
	var all []string
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		one := "'" + name + "=" + strings.ReplaceAll(parameters[name], "'", `'\''`) + "'"
		if w.Late.ARN != "" && name == "SecretArns" { // AWS makes up the end of the ARN when it makes the secret
			one = `"` + name + "=" + strings.ReplaceAll(parameters[name], w.Late.ARN, "$(aws secretsmanager describe-secret --secret-id "+w.Late.Name+
				" --query ARN --output text --region "+w.Region+")") + `"`
		}
		all = append(all, "    "+one)
	}
	line("%s", strings.Join(all, " \\\n"))
	return b.String(), nil
}
