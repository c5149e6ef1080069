package onboard

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	"github.com/castai/kops-spot/iam"
)

// Files are documents and manifests by the names of their files. None of them holds a secret.
type Files map[string][]byte

// documents are what onboarding writes into the account: the policies, and the tags by which they tell clusters apart.
func (w Spec) documents(s State, token *tokenSync) (Files, error) {
	if token != nil && s.TokenSecret == nil {
		s.TokenSecret = w.placeholderSecret()
	}
	files := Files{}
	all := []iam.Document{iam.Boundary, iam.ManagedPolicy, iam.RestrictedPolicy, iam.Trust, iam.HandlerPolicy, iam.RuntimePolicy}
	if len(w.Subnets) > 0 {
		all = append(all, iam.NetworkPolicy)
	}
	for _, d := range all {
		text, err := w.document(d, s)
		if err != nil {
			return nil, err
		}
		files[fileOf(d)] = []byte(text)
	}
	userTags, err := iam.UserTags(w.Environment.Values)
	if err != nil {
		return nil, err
	}
	var tags []map[string]string // as the options of the AWS CLI take them
	for _, key := range slices.Sorted(maps.Keys(userTags)) {
		tags = append(tags, map[string]string{"Key": key, "Value": userTags[key]})
	}
	text, err := json.MarshalIndent(tags, "", "  ")
	files["user-tags.json"] = append(text, '\n')
	return files, err
}

func fileOf(d iam.Document) string { return cmp.Or(d.Name, "trust") + ".json" }

// text is one of the policy documents.
func (f Files) text(d iam.Document) string { return string(f[fileOf(d)]) }
