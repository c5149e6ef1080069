package iam_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/castai/kops-spot/iam"
)

// Condition keys that every request has. simulate.mjs has the same list.
var everywhere = []string{"aws:principaltag/", "aws:requestedregion", "aws:sourceaccount", "lambda:sourcefunctionarn"}

// generic returns a condition key as AWS documents it: up to the slash if a tag key follows.
func generic(key string) string {
	key, _, tag := strings.Cut(strings.ToLower(key), "/")
	if tag {
		return key + "/"
	}
	return key
}

// knows reports whether AWS documents the key for the action on a resource type.
func (a action) knows(key string, typ resourceType) bool {
	return slices.Contains(slices.Concat(everywhere, a.Keys, typ.Keys), generic(key))
}

// typesFor returns the action's resource types that an element of Resource can match. An action without resource types
// has one without a name.
func (a action) typesFor(pattern string) []resourceType {
	if pattern == "*" || len(a.Types) == 0 {
		return append(slices.Clone(a.Types), resourceType{})
	}
	var types []resourceType
	for _, typ := range a.Types {
		parts := strings.SplitN(typ.ARN, ":", 6)
		template, _, _ := strings.Cut(parts[5], "$")
		literal, _, _ := strings.Cut(last(pattern), "*")
		if strings.HasPrefix(literal, template) || strings.HasPrefix(template, literal) {
			types = append(types, typ)
		}
	}
	return types
}

// covers reports whether a resource is of the type.
func (r resourceType) covers(resource string) bool {
	if resource == "*" {
		return false
	}
	template := variable.ReplaceAllString(regexp.QuoteMeta(last(r.ARN)), ".*")
	return strings.Split(r.ARN, ":")[2] == strings.Split(resource, ":")[2] &&
		regexp.MustCompile("^"+template+"$").MatchString(last(resource))
}

// variable is a variable in a quoted ARN of AWS's documentation.
var variable = regexp.MustCompile(`\\\$\\\{[^}]*\\\}`)

// described returns all actions of the table, as AWS documents them.
var described = func() func(t *testing.T) map[string]action {
	var once sync.Once
	var actions map[string]action
	return func(t *testing.T) map[string]action {
		t.Helper()
		once.Do(func() {
			var q question
			for _, s := range subjects(clusterA) {
				for _, r := range s.rows {
					q.Describe = append(q.Describe, r.actions...)
				}
			}
			actions = ask(t, q).Actions
		})
		return actions
	}
}()

// vacuous reports whether a condition is met if the request lacks the key.
func vacuous(operator, value string) bool {
	return strings.HasPrefix(operator, "ForAllValues:") || strings.HasSuffix(operator, "IfExists") ||
		strings.Contains(operator, "Not") ||
		operator == "Null" && value == "true"
}

// ourDocuments returns the statements of a cluster's documents with their actions expanded.
func ourDocuments(t *testing.T, documents ...iam.Document) (map[string][]statement, map[string]action) {
	t.Helper()
	all := map[string][]statement{}
	var q question
	for _, d := range documents {
		statements := statementsOf(t, library(t)[named(clusterA.Cluster, d.Name)])
		for _, s := range statements {
			q.Expand = append(q.Expand, s.Action...)
		}
		all[d.Name] = statements
	}
	expanded := ask(t, q).Expanded
	for name, statements := range all {
		for i, s := range statements {
			var actions []string
			for _, pattern := range s.Action {
				if len(expanded[pattern]) == 0 {
					t.Errorf("%s, %s: %s is not an IAM action", name, s.Sid, pattern)
				}
				actions = append(actions, expanded[pattern]...)
			}
			statements[i].Action = actions
		}
	}
	describe := question{}
	for _, statements := range all {
		for _, s := range statements {
			describe.Describe = append(describe.Describe, s.Action...)
		}
	}
	return all, ask(t, describe).Actions
}

var identityDocuments = []iam.Document{iam.ManagedPolicy, iam.RestrictedPolicy, iam.Boundary, iam.HandlerPolicy,
	iam.RuntimePolicy,
	iam.NetworkPolicy, iam.InstallerPolicy, iam.SavingsPolicy}

// TestConditionKeysExist: AWS accepts condition keys that an action does not support. Such a condition is never met or,
// worse, always.
func TestConditionKeysExist(t *testing.T) {
	t.Parallel()
	documents, actions := ourDocuments(t, identityDocuments...)
	for name, statements := range documents {
		for _, s := range statements {
			for operator, conditions := range s.Condition {
				for key, value := range conditions {
					known := 0
					for _, a := range s.Action {
						if !slices.ContainsFunc(s.Resource, func(pattern string) bool {
							return slices.ContainsFunc(actions[a].typesFor(pattern),
								func(typ resourceType) bool { return actions[a].knows(key, typ) })
						}) {
							// A condition that is met without its key, for only some of the actions, is intended.
							if text, _ := value.(string); !vacuous(operator, text) {
								t.Errorf("%s, %s: %s does not support %s", name, s.Sid, a, key)
							}
							continue
						}
						known++
					}
					if known == 0 {
						t.Errorf("%s, %s: no action supports %s", name, s.Sid, key)
					}
				}
			}
		}
	}
}

// TestTableCoversDocuments: the table has a request for each action and each element of Resource that a document
// allows.
func TestTableCoversDocuments(t *testing.T) {
	t.Parallel()
	asked := map[string][]string{} // resources of the table's allowed requests, by action
	for _, s := range subjects(clusterA) {
		for _, r := range s.rows {
			for _, a := range r.actions {
				asked[a] = append(asked[a], r.on.arn(thingOf(clusterA)))
			}
		}
	}
	documents, actions := ourDocuments(t, identityDocuments...)
	delete(documents, iam.Boundary.Name) // TestReadOnlyDocuments has its actions
	for name, statements := range documents {
		for _, s := range statements {
			if s.Effect != "Allow" {
				continue
			}
			for _, a := range s.Action {
				for _, pattern := range s.Resource {
					if pattern == "*" && actions[a].Write &&
						!slices.ContainsFunc(exceptions, func(e exception) bool { return e.policy == name && e.covers(a) }) {
						t.Errorf("%s, %s: %s is allowed on everything, and not a listed exception", name, s.Sid, a)
					}
					switch {
					case !live(actions[a], pattern, s):
					case !slices.ContainsFunc(asked[a],
						func(resource string) bool { return covers(pattern, resource) }):
						t.Errorf("%s, %s: the table has no row for %s on %s", name, s.Sid, a, pattern)
					}
				}
			}
		}
	}
}

// live reports whether a statement can allow an action on an element of Resource. It cannot if the action's resources
// are of another type, or if AWS does not send a condition key for them.
func live(a action, pattern string, s statement) bool {
	return slices.ContainsFunc(a.typesFor(pattern), func(typ resourceType) bool {
		for operator, conditions := range s.Condition {
			for key, value := range conditions {
				if text, _ := value.(string); !vacuous(operator, text) && !a.knows(key, typ) {
					return false
				}
			}
		}
		return true
	})
}

// covers reports whether an element of Resource in a document of cluster A matches a resource.
func covers(pattern, resource string) bool {
	for key, value := range userOf(clusterA).facts {
		pattern = strings.ReplaceAll(pattern, "${"+key+"}", value.(string))
	}
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") +
		"$").MatchString(resource)
}

// TestResourcesArePinned to partition, account and region. The region is in the ARN or, in the shared policy, enforced
// by a denial of all other regions.
func TestResourcesArePinned(t *testing.T) {
	t.Parallel()
	documents, _ := ourDocuments(t, identityDocuments...)
	for name, statements := range documents {
		for _, s := range statements {
			for _, resource := range s.Resource {
				if resource == "*" {
					continue // reads and denials have their own tests
				}
				parts := strings.SplitN(resource, ":", 6)
				in, owner := region, account
				if name == iam.ManagedPolicy.Name {
					in = "*"
				}
				switch {
				case parts[2] == "iam":
					in = ""
				case parts[2] == "s3":
					in, owner = "", ""
				case strings.HasPrefix(parts[5], "image/"), strings.HasPrefix(parts[5], "snapshot/"):
					owner = ""
				}
				if parts[1] != "aws" || parts[3] != in || parts[4] != owner {
					t.Errorf("%s, %s: %s is not pinned", name, s.Sid, resource)
				}
			}
		}
	}
}

func TestReadOnlyDocuments(t *testing.T) {
	t.Parallel()
	documents, actions := ourDocuments(t, iam.Boundary, iam.SavingsPolicy)
	for name, statements := range documents {
		for _, s := range statements {
			for _, a := range s.Action {
				if actions[a].Write {
					t.Errorf("%s: %s writes", name, a)
				}
			}
		}
	}
}

// TestSharedPolicyIsIdentical: only the users' tags differ.
func TestSharedPolicyIsIdentical(t *testing.T) {
	t.Parallel()
	elsewhere := onboarded("prod.example.org", "Other", "0d")
	elsewhere.Region = otherRegion
	for _, v := range []iam.Values{clusterB, elsewhere} {
		for _, d := range []iam.Document{iam.ManagedPolicy, iam.Boundary} {
			a, errA := iam.Render(d, clusterA)
			b, errB := iam.Render(d, v)
			if errA != nil || errB != nil || !slices.Equal(a, b) {
				t.Errorf("%s differs between %s and %s (%v, %v)", d.Name, clusterA.Cluster, v.Cluster, errA, errB)
			}
		}
	}
	tagsA, _ := iam.UserTags(clusterA)
	tagsB, _ := iam.UserTags(clusterB)
	delete(tagsA, iam.TagManagedBy)
	delete(tagsA, iam.TagRegion)
	for key := range maps.Keys(tagsA) {
		if tagsA[key] == tagsB[key] {
			t.Errorf("two clusters' users have the same %s", key)
		}
	}
}
