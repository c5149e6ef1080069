package onboard

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// Kinds of things, as a plan names them.
const (
	kindPolicy   = "IAM policy"
	kindUser     = "IAM user"
	kindRole     = "IAM role"
	kindKey      = "access key"
	kindSecret   = "secret"
	kindVersion  = "policy version"
	kindAttached = "policy" // that is attached to a user or a role
	kindInline   = "inline policy"
	kindFunction = "Lambda function"
	kindRule     = "EventBridge rule"
)

// decide says what to change in the account. In this order nothing that is half done is dangerous: the boundary is
// there before the policy that relies on it, the tags with the user that the policy tells apart by them, the trust
// with the role; and the key that all of it is for comes last.
//
// files are what is written. inCluster are the steps in the cluster: they come between, since the function's role
// may have to read a token of its. token is that; nil if the function needs none.
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
	return slices.Concat(
		managedPolicy(s, s.Boundary, iam.Boundary, files,
			"the most that roles can do which a cluster's user makes; one for the account",
			"Bounds the roles that CAST AI makes for nodes of kOps clusters"),
		managedPolicy(s, s.Managed, iam.ManagedPolicy, files,
			"what the users of all clusters may create; it tells them apart by their tags",
			"What CAST AI may create for a kOps cluster, by the tags of its user"),
		user(w, s, tags), role(w, s, files), inCluster, token.steps(w, s), roleRights(w, s, files, token),
		userRights(w, s, files), keys), nil
}

func managedPolicy(s State, now *awsadmin.Policy, d iam.Document, files Files, why, description string) []step {
	text := files.text(d)
	tags := map[string]string{iam.TagManagedBy: iam.ManagedBy}
	if now == nil {
		return []step{newStep(change.Create, kindPolicy, d.Name, why, awsadmin.CreatePolicy(d.Name, description, text, tags))}
	}
	var steps []step
	one := updateDocument(kindPolicy, now.Name, why, now.Document, text, awsadmin.CreatePolicyVersion(now.ARN, text))
	if one.Changes() {
		if len(now.Versions) >= awsadmin.MaxVersions {
			steps = append(steps, deleteVersion(now, oldestVersion(now),
				fmt.Sprintf("it has %d versions, and this is the oldest that does not count", len(now.Versions))))
		}
		if losers := s.UntaggedUsers; len(losers) > 0 && now == s.Managed {
			one.Why += "; " + joinAnd(losers) + " lose by that what they may do with it"
		}
	}
	steps = append(steps, one)
	return append(steps, updateTags(kindPolicy, now.Name, now.ARN, now.Tags, tags, awsadmin.TagPolicy)...)
}

func deleteVersion(p *awsadmin.Policy, version, why string) step {
	return newStep(change.Delete, kindVersion, p.Name+"/"+version, why, awsadmin.DeletePolicyVersion(p.ARN, version))
}

// oldestVersion is the oldest of a policy's versions that may be deleted.
func oldestVersion(p *awsadmin.Policy) string {
	oldest := awsadmin.Version{}
	for _, v := range p.Versions {
		if !v.Default && (oldest.ID == "" || older(v, oldest)) {
			oldest = v
		}
	}
	return oldest.ID
}

// older compares by time, and within one second by the number in the id: v2 came before v10.
func older(a, b awsadmin.Version) bool {
	if !a.Created.Equal(b.Created) {
		return a.Created.Before(b.Created)
	}
	return len(a.ID) < len(b.ID) || len(a.ID) == len(b.ID) && a.ID < b.ID
}

// updateTags adds tags that are missing, or say something else.
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
		why = "it was there before kops-spot, and is taken over: offboarding takes it away"
	}
	one := newStep(change.Tag, kind, name, why, tag(id, missing))
	one.Diff = diff
	return []step{one}
}

func user(w Spec, s State, tags map[string]string) []step {
	name := iam.UserName(w.Environment.Cluster)
	if s.User == nil {
		return []step{newStep(change.Create, kindUser, name, "as whom CAST AI works on the cluster",
			awsadmin.CreateUser(name, tags))}
	}
	steps := []step{keep(kindUser, s.User.Name, "as whom CAST AI works on the cluster")}
	return append(steps, updateTags(kindUser, s.User.Name, s.User.Name, s.User.Tags, tags, awsadmin.TagUser)...)
}

func arnName(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

func joinAnd(names []string) string {
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return strings.Join(names, "")
}

func role(w Spec, s State, files Files) []step {
	trust := files.text(iam.Trust)
	tags := iam.Tags(w.Environment.Cluster)
	why := "as whom the function runs; Lambda alone may be it"
	if s.Role == nil {
		if s.RoleName != iam.FunctionRole {
			why += "; " + iam.FunctionRole + " is another's in this account"
		}
		return []step{newStep(change.Create, kindRole, s.RoleName, why, awsadmin.CreateRole(s.RoleName,
			"Handles the Spot interruptions of "+w.Environment.Cluster, trust, tags))}
	}
	steps := []step{updateDocument(kindRole, s.Role.Name, why, s.Role.Trust, trust, awsadmin.UpdateTrust(s.Role.Name, trust))}
	return append(steps, updateTags(kindRole, s.Role.Name, s.Role.Name, s.Role.Tags, tags, awsadmin.TagRole)...)
}
