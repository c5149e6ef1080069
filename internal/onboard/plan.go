package onboard

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

const (
	kindPolicy   = "IAM policy"
	kindUser     = "IAM user"
	kindRole     = "IAM role"
	kindKey      = "access key"
	kindSecret   = "secret"
	kindVersion  = "policy version"
	kindAttached = "policy" // attached to a user or a role
	kindInline   = "inline policy"
	kindFunction = "Lambda function"
	kindRule     = "EventBridge rule"
	kindBoundary = "permissions boundary"
)

// decide returns what to change in the account. The order makes an interruption harmless: the boundary comes before the
// policy that requires it, the tags with the user that the policy checks, the trust policy with the role, and the key
// last.
//
// inCluster are the steps in the cluster, before those that copy its token; token is nil if the function needs none.
func decide(w Spec, s State, files Files, inCluster []step, token *tokenSync) ([]step, error) {
	if err := w.checkConflicts(s, files); err != nil {
		return nil, err
	}
	tags, err := iam.UserTags(w.Environment.Values)
	if err != nil {
		return nil, err
	}
	keys, err := planKey(w, s)
	if err != nil {
		return nil, err
	}
	tags = w.tags(tags)
	ours := w.tags(map[string]string{iam.TagManagedBy: iam.ManagedBy}) // of policies that all clusters share
	policies := slices.Concat(
		managedPolicy(w, s, s.Boundary, iam.Boundary, files, ours,
			"limits the roles that clusters' users create; one for the account",
			"Limits the roles that CAST AI creates for nodes of kOps clusters"),
		managedPolicy(w, s, s.Managed, iam.ManagedPolicy, files, ours,
			"what clusters' users may create, by their tags; one for the account",
			"What CAST AI may create for a kOps cluster, by the tags of its user"),
		managedPolicy(w, s, s.ClusterPolicy, iam.ClusterPolicy, files, w.tags(iam.Tags(w.Environment.Cluster)),
			"the cluster's function, and the roles that its user may pass"+newNodeRoles(w, s),
			"The function of "+w.Environment.Cluster+", and the roles that its user may pass"))
	return slices.Concat(change.Of(policies, partPolicies), change.Of(user(w, s, tags), partUser),
		change.Of(role(w, s, files), partRole),
		change.Of(inCluster, partCluster, partUser, partRole), // which must not map a name that somebody else could take
		change.Of(token.steps(w, s), partToken, partCluster),
		change.Of(roleRights(w, s, files, token), "the role's policies", partRole, partToken),
		change.Of(userRights(w, s, files), partRights, partUser, partPolicies), keys), nil
}

// newNodeRoles says which roles the user may newly pass.
func newNodeRoles(w Spec, s State) (why string) {
	old := ""
	if s.ClusterPolicy != nil {
		old = s.ClusterPolicy.Document
	}
	for _, role := range w.Environment.NodeRoles {
		if !strings.Contains(old, `"`+w.Environment.RoleARN(role)+`"`) {
			why += "; new: the user may launch instances with the role " + role + " (iam:PassRole)"
		}
	}
	return why
}

func managedPolicy(w Spec, s State, now *awsadmin.Policy, d iam.Document, files Files, tags map[string]string,
	why, description string) (steps []step) {
	text := files.text(d)
	if now == nil {
		name := w.Environment.PolicyName(d)
		return []step{newStep(change.Create, kindPolicy, name, why, awsadmin.CreatePolicy(name, description, text, tags))}
	}
	steps = newVersion(now, why, text)
	if one := &steps[len(steps)-1]; one.Changes() && now == s.Managed && len(s.UntaggedUsers) > 0 {
		one.Why += "; this removes permissions of " + joinAnd(s.UntaggedUsers)
	}
	return append(steps, updateTags(kindPolicy, now.Name, now.ARN, now.Tags, tags, awsadmin.TagPolicy)...)
}

// newVersion makes a text the default version of a policy.
func newVersion(now *awsadmin.Policy, why, text string) (steps []step) {
	one := updateDocument(kindPolicy, now.Name, why, now.Document, text, awsadmin.CreatePolicyVersion(now.ARN, text))
	if one.Changes() && len(now.Versions) >= awsadmin.MaxVersions {
		steps = append(steps, deleteVersion(now, oldestVersion(now),
			fmt.Sprintf("the oldest but the default, since IAM allows %d versions", awsadmin.MaxVersions)))
	}
	return append(steps, one)
}

// updateDocument is the row of an existing document.
func updateDocument(kind, name, why, now, text string, c awsadmin.Call) step {
	if awsadmin.SameDocument(now, text) {
		return keep(kind, name, why)
	}
	one := newStep(change.Update, kind, name, why, c)
	one.Diff = awsadmin.DiffDocuments(now, text)
	return one
}

func deleteVersion(p *awsadmin.Policy, version, why string) step {
	return newStep(change.Delete, kindVersion, p.Name+"/"+version, why, awsadmin.DeletePolicyVersion(p.ARN, version))
}

// oldestVersion returns the oldest version but the default. Within a second, the number in the ID decides: v2 is older
// than v10.
func oldestVersion(p *awsadmin.Policy) string {
	others := slices.DeleteFunc(slices.Clone(p.Versions), func(v awsadmin.Version) bool { return v.Default })
	return slices.MinFunc(others, func(a, b awsadmin.Version) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(len(a.ID), len(b.ID)), cmp.Compare(a.ID, b.ID))
	}).ID
}

// updateTags sets tags that are missing or different.
func updateTags(kind, name, id string, has, want map[string]string,
	tag func(string, map[string]string) awsadmin.Call) []step {
	missing := map[string]string{}
	var diff []string
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if has[key] == want[key] {
			continue
		}
		if was, ok := has[key]; ok {
			diff = append(diff, "- "+key+"="+was)
		}
		missing[key] = want[key]
		diff = append(diff, "+ "+key+"="+want[key])
	}
	if len(missing) == 0 {
		return nil
	}
	why := ""
	if has[iam.TagManagedBy] != iam.ManagedBy {
		why = "it existed before kops-spot, which now manages it: offboarding deletes it"
	}
	one := newStep(change.Tag, kind, name, why, tag(id, missing))
	one.Diff = diff
	return []step{one}
}

func user(w Spec, s State, tags map[string]string) []step {
	const why = "CAST AI's identity for the cluster"
	boundary := s.Settings["PermissionsBoundary"]
	if s.User == nil {
		name := iam.UserName(w.Environment.Cluster)
		return []step{newStep(change.Create, kindUser, name, why, awsadmin.CreateUser(name, boundary, tags))}
	}
	name := s.User.Name
	return slices.Concat([]step{keep(kindUser, name, why)},
		updateBoundary(name, s.User.Boundary, boundary, awsadmin.PutUserBoundary),
		updateTags(kindUser, name, name, s.User.Tags, tags, awsadmin.TagUser))
}

func updateBoundary(of, has, want string, put func(of, arn string) awsadmin.Call) []step {
	if want == "" || has == want {
		return nil
	}
	name, why := of+"/"+arnName(want), "PermissionsBoundary"
	if has != "" {
		why += "; it replaces " + arnName(has)
	}
	return []step{newStep(change.Attach, kindBoundary, name, why, put(of, want))}
}

func role(w Spec, s State, files Files) []step {
	trust, tags, name := files.text(iam.Trust), w.tags(iam.Tags(w.Environment.Cluster)), s.RoleName
	why, boundary := "the function's identity; only Lambda can assume it", s.Settings["PermissionsBoundary"]
	switch {
	case s.RoleOwner != "":
		return []step{leave(kindRole, name, "the function's identity; "+s.RoleOwner)}
	case s.Role == nil:
		if name != iam.FunctionRole {
			why += "; " + iam.FunctionRole + " belongs to another cluster or to somebody else"
		}
		description := "Handles the Spot interruptions of " + w.Environment.Cluster
		return []step{newStep(change.Create, kindRole, name, why,
			awsadmin.CreateRole(name, description, trust, boundary, tags))}
	}
	one := updateDocument(kindRole, name, why, s.Role.Trust, trust, awsadmin.UpdateTrust(name, trust))
	return slices.Concat([]step{one}, updateBoundary(name, s.Role.Boundary, boundary, awsadmin.PutRoleBoundary),
		updateTags(kindRole, name, name, s.Role.Tags, tags, awsadmin.TagRole))
}

// userRights are the user's policies: the inline one before the attached ones.
func userRights(w Spec, s State, files Files) []step {
	name := iam.UserName(w.Environment.Cluster)
	var has awsadmin.User
	if s.User != nil {
		has, name = *s.User, s.User.Name
	}
	arn := w.Environment.PolicyARN(iam.ManagedPolicy)
	if s.Managed != nil {
		arn = s.Managed.ARN // its name may differ in case
	}
	wanted := map[string]string{arn: "what the user may create",
		w.Environment.PolicyARN(iam.ClusterPolicy): "its function, and the roles that it may pass"}
	for _, policy := range iam.UserManaged {
		wanted[w.Environment.AWSPolicyARN(policy)] = "AWS managed: read access"
	}
	steps := append([]step{inline(has.Inline, name, iam.RestrictedPolicy, files,
		"what the user may do with the cluster's resources", awsadmin.PutUserPolicy)},
		attachments(has.Attached, wanted, name, awsadmin.AttachUserPolicy)...)
	for _, policy := range iam.OriginalUserManaged {
		if other := w.Environment.AWSPolicyARN(policy); slices.Contains(has.Attached, other) {
			wanted[other] = ""
			steps = append(steps, newStep(change.Detach, kindAttached, name+"/"+policy,
				"from CAST AI's original script; not limited to the cluster", awsadmin.DetachUserPolicy(name, other)))
		}
	}
	return append(steps, reviewUser(name, has, wanted, s.Settings["PermissionsBoundary"])...)
}

// reviewUser are the rows of what somebody else has granted the user.
func reviewUser(name string, has awsadmin.User, wanted map[string]string, boundary string) []step {
	steps := reviewRights("user", name, has.Rights, wanted, boundary, iam.RestrictedPolicy)
	for _, group := range has.Groups {
		steps = append(steps, review("group", name+"/"+group,
			"iam", "remove-user-from-group", "--user-name", name, "--group-name", group))
	}
	for _, c := range has.Credentials {
		steps = append(steps, review(c.Kind, strings.TrimSuffix(name+"/"+arnName(c.ID), "/"), removeCredential(name, c)...))
	}
	return steps
}

// reviewRights are the rows of what somebody else has granted a user or a role.
func reviewRights(kind, name string, has awsadmin.Rights, wanted map[string]string, boundary string,
	ours ...iam.Document) (steps []step) {
	flag := "--" + kind + "-name"
	for _, arn := range slices.Sorted(slices.Values(has.Attached)) {
		if _, ok := wanted[arn]; !ok {
			steps = append(steps, review(kindAttached, name+"/"+arnName(arn),
				"iam", "detach-"+kind+"-policy", flag, name, "--policy-arn", arn))
		}
	}
	for _, policy := range slices.Sorted(maps.Keys(has.Inline)) {
		if !slices.ContainsFunc(ours, func(d iam.Document) bool { return strings.EqualFold(d.Name, policy) }) {
			steps = append(steps, review(kindInline, name+"/"+policy,
				"iam", "delete-"+kind+"-policy", flag, name, "--policy-name", policy))
		}
	}
	if has.Boundary != "" && boundary == "" { // otherwise it is the wanted one, or is replaced
		steps = append(steps, review(kindBoundary, name+"/"+arnName(has.Boundary),
			"iam", "delete-"+kind+"-permissions-boundary", flag, name))
	}
	return steps
}

// inline is the row of an inline policy of a user or a role.
func inline(has map[string]string, of string, d iam.Document, files Files, why string,
	put func(of, policy, text string) awsadmin.Call) step {
	old, text := findFold(slices.Sorted(maps.Keys(has)), d.Name), files.text(d)
	if old == "" {
		return newStep(change.Create, kindInline, of+"/"+d.Name, why, put(of, d.Name, text))
	}
	return updateDocument(kindInline, of+"/"+old, why, has[old], text, put(of, old, text))
}

// attachments are the rows of the managed policies of a user or a role.
func attachments(has []string, wanted map[string]string, of string,
	attach func(of, arn string) awsadmin.Call) (steps []step) {
	for _, arn := range slices.Sorted(maps.Keys(wanted)) {
		name, why := of+"/"+arnName(arn), wanted[arn]
		if slices.Contains(has, arn) {
			steps = append(steps, keep(kindAttached, name, why))
		} else {
			steps = append(steps, newStep(change.Attach, kindAttached, name, why, attach(of, arn)))
		}
	}
	return steps
}

// roleRights are the policies of the function's role.
func roleRights(w Spec, s State, files Files, token *tokenSync) []step {
	if s.RoleOwner != "" {
		return nil
	}
	var has awsadmin.Role
	if s.Role != nil {
		has = *s.Role
	}
	row := func(d iam.Document, why string) step {
		return inline(has.Inline, s.RoleName, d, files, why, awsadmin.PutRolePolicy)
	}
	handler := row(iam.HandlerPolicy, "what the function's code calls")
	if token != nil && s.TokenSecret == nil { // its ARN is known only after it is created
		handler.Why += "; it reads the new secret " + TokenSecret(w.Environment.Cluster)
		handler.Write = func(ctx context.Context, r *Onboarding) (err error) {
			if s.TokenSecret, err = r.AWS.Secret(ctx, TokenSecret(w.Environment.Cluster)); err != nil {
				return err
			}
			text, err := w.document(iam.HandlerPolicy, s)
			if err != nil {
				return err
			}
			return r.AWS.Do(ctx, awsadmin.PutRolePolicy(s.RoleName, arnName(handler.Name), text))
		}
	}
	steps := []step{handler, row(iam.RuntimePolicy, "what Lambda does for the function")}
	old := findFold(slices.Sorted(maps.Keys(has.Inline)), iam.NetworkPolicy.Name)
	switch {
	case s.Settings["SubnetIds"] != "":
		steps = append(steps, row(iam.NetworkPolicy, "the network interfaces that Lambda creates for a function in the VPC"))
	case old != "": // Lambda still needs it if the function is in the VPC
		steps = append(steps, leave(kindInline, s.RoleName+"/"+old, "SubnetIds is not set: once the function has left "+
			"the VPC, delete it with "+awsCLI("iam", "delete-role-policy", "--role-name", s.RoleName, "--policy-name", old)))
	}
	guide := map[string]string{}
	for _, policy := range iam.GuideRoleManaged {
		guide[w.Environment.AWSPolicyARN(policy)] = "AWS managed, from the guide; not limited to the cluster"
	}
	reviews := reviewRights("role", s.RoleName, has.Rights, guide, s.Settings["PermissionsBoundary"],
		iam.HandlerPolicy, iam.RuntimePolicy, iam.NetworkPolicy)
	if w.Permissions == Guide {
		return slices.Concat(steps, attachments(has.Attached, guide, s.RoleName, awsadmin.AttachRolePolicy), reviews)
	}
	for _, arn := range slices.Sorted(slices.Values(has.Attached)) {
		if _, ok := guide[arn]; ok {
			steps = append(steps, newStep(change.Detach, kindAttached, s.RoleName+"/"+arnName(arn),
				"not limited to the cluster; --permissions guide keeps it", awsadmin.DetachRolePolicy(s.RoleName, arn)))
		}
	}
	return append(steps, reviews...)
}

func arnName(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

func joinAnd(names []string) string {
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return strings.Join(names, "")
}

// Files are documents and manifests by file name. None contains a secret.
type Files map[string][]byte

// documents renders the policies, and the user's tags in the form of the AWS CLI.
func (w Spec) documents(s State, token *tokenSync) (Files, error) {
	if token != nil && s.TokenSecret == nil {
		s.TokenSecret = w.placeholderSecret()
	}
	files := Files{}
	documents := []iam.Document{iam.Boundary, iam.ManagedPolicy, iam.ClusterPolicy, iam.RestrictedPolicy}
	if s.RoleOwner == "" {
		documents = append(documents, iam.Trust, iam.HandlerPolicy, iam.RuntimePolicy)
		if s.Settings["SubnetIds"] != "" {
			documents = append(documents, iam.NetworkPolicy)
		}
	}
	for _, d := range documents {
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
	var tags []map[string]string
	for _, key := range slices.Sorted(maps.Keys(w.tags(userTags))) {
		tags = append(tags, map[string]string{"Key": key, "Value": w.tags(userTags)[key]})
	}
	text, err := json.MarshalIndent(tags, "", "  ")
	files["user-tags.json"] = append(text, '\n')
	return files, err
}

func fileOf(d iam.Document) string { return cmp.Or(d.Name, "trust") + ".json" }

func (f Files) text(d iam.Document) string { return string(f[fileOf(d)]) }
