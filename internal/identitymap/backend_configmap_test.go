package identitymap

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/change"
)

var (
	testRole = Identity{Kind: Role, ARN: "arn:aws:iam::111122223333:role/a/path/Ours", Username: "kops-spot", Groups: []string{HandlerGroup}}
	testUser = Identity{Kind: User, ARN: "arn:aws:iam::111122223333:user/a/path/cast-kops-prod", Username: "cast-kops", Groups: []string{"cast:console"}}
	bothOurs = []Identity{testRole, testUser}
)

const (
	roleEntry = "- rolearn: arn:aws:iam::111122223333:role/Ours\n  username: kops-spot\n  groups:\n    - cast:spot-handler\n"
	userEntry = "- userarn: arn:aws:iam::111122223333:user/a/path/cast-kops-prod\n  username: cast-kops\n  groups:\n    - cast:console\n"
)

// configMap returns a ConfigMap with data; nil without.
func configMap(r ref, texts map[string]string) object {
	if texts == nil {
		return nil
	}
	o := r.empty()
	set(o, "7", "metadata", "resourceVersion")
	set(o, "theirs", "metadata", "annotations", "their/annotation")
	for key, text := range texts {
		set(o, text, "data", key)
	}
	return o
}

// theirRoles is a handwritten list with blank lines and comments.
const theirRoles = "# nodes\n\n- rolearn: arn:aws:iam::111122223333:role/nodes  # all\n  username: system:node:{{EC2PrivateDNSName}}\n\n  groups: [system:nodes]\n# the end\n"

// meaning returns a ConfigMap with its texts decoded and without empty ones.
func meaning(t *testing.T, o object) object {
	t.Helper()
	if stringAt(o, "kind") != "ConfigMap" {
		return o
	}
	o = o.DeepCopy()
	for key := range stringMapAt(o, "data") {
		said, err := reads(listText(o, key), "")
		if err != nil {
			t.Fatal(err)
		}
		if set(o, said, "data", key); said == "null" {
			unset(o, "data", key)
		}
	}
	return o
}

// TestAddAndRemove: our entries are added to any list, adding them again changes nothing, and removing them restores
// the list.
func TestAddAndRemove(t *testing.T) {
	withRole := strings.NewReplacer("  # all", " # all", "}}\n\n", "}}\n", "[system:nodes]", "['system:nodes']", "# the end", roleEntry+"\n# the end").
		Replace(theirRoles)
	file := func(list string) map[string]string {
		return map[string]string{fileKey: "clusterID: c\nserver:\n" + list + "  port: 1\n"}
	}
	fileRole := strings.NewReplacer("- rolearn", "    - roleARN", "\n  ", "\n      ").Replace(strings.TrimSuffix(roleEntry, "\n")) + "\n"
	fileUser := strings.NewReplacer("- userarn", "    - userARN", "\n  ", "\n      ").Replace(strings.TrimSuffix(userEntry, "\n")) + "\n"
	fresh := map[string]string{"mapRoles": roleEntry, "mapUsers": userEntry}
	awsAuth, mounted := awsAuthBackend(), fileBackend(configMapRef("aws-iam-authenticator"), "prod.example.com")
	for name, c := range map[string]struct {
		backend configMapBackend
		before  map[string]string
		want    map[string]string
	}{
		"no ConfigMap":         {awsAuth, nil, fresh},
		"no data":              {awsAuth, map[string]string{}, fresh},
		"other data":           {awsAuth, map[string]string{"mapAccounts": "- '000000000000'\n"}, map[string]string{"mapAccounts": "- '000000000000'\n", "mapRoles": roleEntry, "mapUsers": userEntry}},
		"empty":                {awsAuth, map[string]string{"mapRoles": "", "mapUsers": " \n"}, map[string]string{"mapRoles": roleEntry, "mapUsers": userEntry}},
		"empty lists":          {awsAuth, map[string]string{"mapRoles": "[]", "mapUsers": "[]\n"}, fresh},
		"null":                 {awsAuth, map[string]string{"mapRoles": "null", "mapUsers": "~\n"}, fresh},
		"quotes":               {awsAuth, map[string]string{"mapRoles": "``", "mapUsers": `""`}, fresh},
		"quotes of one kind":   {awsAuth, map[string]string{"mapRoles": "''\n"}, fresh},
		"comments":             {awsAuth, map[string]string{"mapRoles": "# nobody\n"}, map[string]string{"mapRoles": "# nobody\n\n" + roleEntry, "mapUsers": userEntry}},
		"others":               {awsAuth, map[string]string{"mapRoles": theirRoles}, map[string]string{"mapRoles": withRole, "mapUsers": userEntry}},
		"no file":              {mounted, nil, map[string]string{fileKey: "clusterID: prod.example.com\nserver:\n  mapRoles:\n" + fileRole + "  mapUsers:\n" + fileUser}},
		"a file without lists": {mounted, file(""), map[string]string{fileKey: "clusterID: c\nserver:\n  port: 1\n  mapRoles:\n" + fileRole + "  mapUsers:\n" + fileUser}},
		"a file with a list": {mounted, file("  mapUsers:\n    - userARN: x # X\n      username: x\n"),
			map[string]string{fileKey: "clusterID: c\nserver:\n  mapUsers:\n    - userARN: x # X\n      username: x\n" + fileUser + "  port: 1\n  mapRoles:\n" + fileRole}},
		"a file without a server": {mounted, map[string]string{fileKey: "clusterID: c\n"}, map[string]string{fileKey: "clusterID: c\nserver:\n  mapRoles:\n" + fileRole + "  mapUsers:\n" + fileUser}},
	} {
		t.Run(name, func(t *testing.T) {
			before := configMap(c.backend.ref, c.before)
			unchanged := before.DeepCopy()
			given, remarks, err := c.backend.mutate(before, bothOurs, nil)
			if err != nil || len(remarks) > 0 {
				t.Fatal(err, remarks)
			}
			if got := stringMapAt(given, "data"); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got\n%q\nwant\n%q", got, c.want)
			}
			if !reflect.DeepEqual(before, unchanged) {
				t.Error("the original object was modified")
			}
			if again, _, err := c.backend.mutate(given, bothOurs, nil); err != nil || !reflect.DeepEqual(again, given) {
				t.Errorf("adding again: %v: %v", again, err)
			}
			// Removing both at once or one after the other has the same result.
			one, _, err := c.backend.mutate(given, nil, bothOurs[:1])
			if err != nil || strings.Contains(fmt.Sprint(one.Object["data"]), "role/Ours") || !strings.Contains(fmt.Sprint(one.Object["data"]), "cast-kops-prod") {
				t.Errorf("without the role: %v: %v", one.Object["data"], err)
			}
			for how, from := range map[string]object{"at once": given, "one by one": one} {
				taken, remarks, err := c.backend.mutate(from, nil, bothOurs)
				if err != nil || len(remarks) > 0 || !reflect.DeepEqual(meaning(t, taken), meaning(t, before)) {
					t.Errorf("%s: got\n%v\nwant\n%v: %v %v", how, taken, before, err, remarks)
				}
			}
		})
	}
}

// TestForeignGroupsStay: permissions that somebody else has granted stay, and do not count as ours.
func TestForeignGroupsStay(t *testing.T) {
	const arn = "arn:aws:iam::111122223333:role/Ours"
	entryOf := func(arn, name string, groups ...string) string {
		return fmt.Sprintf("- rolearn: %s\n  username: %s # by hand\n  groups: [%s]\n", arn, name, strings.Join(groups, ", "))
	}
	l := awsAuthBackend()
	for name, c := range map[string]struct {
		before string
		given  string
		left   string // after removal; - for before
		leave  []string
	}{
		"an administrator": {before: entryOf(arn, "boss", "system:masters"), given: entryOf(arn, "boss", "'system:masters'", "'cast:spot-handler'"),
			left: "-", leave: []string{"system:masters"}},
		"in another case": {before: entryOf(strings.ToUpper(arn), "boss", "a", "b"), given: entryOf(strings.ToUpper(arn), "boss", "a", "b", "'cast:spot-handler'"),
			left: "-", leave: []string{"a, b"}},
		"without groups": {before: "- rolearn: " + arn + "\n  username: boss\n", given: "- rolearn: " + arn + "\n  username: boss\n  groups:\n    - cast:spot-handler\n",
			left: "-"},
		"our groups under another username": {before: entryOf(arn, "boss", "cast:spot-handler"), given: entryOf(arn, "boss", "cast:spot-handler"), left: "-"},
		"exactly our entry":                 {before: roleEntry, given: roleEntry, left: ""},
		"twice": {before: entryOf(arn, "a", "x") + entryOf(arn, "b"), given: entryOf(arn, "a", "x") + strings.Replace(entryOf(arn, "b", "cast:spot-handler"), " [cast:spot-handler]", "\n    - cast:spot-handler", 1),
			left: "-", leave: []string{"2 entries"}},
		"an ARN with a path, which never matches": {before: entryOf(testRole.ARN, "a", "x"), given: entryOf(testRole.ARN, "a", "x") + roleEntry, left: "-"},
		"an item that is not an entry":            {before: "- just a word\n- {sso: {x: y}, username: z}\n", given: "- just a word\n- {sso: {x: y}, username: z}\n" + roleEntry, left: "-"},
	} {
		t.Run(name, func(t *testing.T) {
			before := configMap(l.ref, map[string]string{"mapRoles": c.before})
			given, remarks, err := l.mutate(before, bothOurs[:1], nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := stringAt(given, "data", "mapRoles"); got != c.given {
				t.Errorf("got\n%s\nwant\n%s", got, c.given)
			}
			if len(remarks) != len(c.leave) {
				t.Fatalf("remarks: %v", remarks)
			}
			for i, want := range c.leave {
				if remarks[i].Verb != change.Leave || !strings.Contains(remarks[i].Why, want) {
					t.Errorf("remark: %v; want %q", remarks[i], want)
				}
			}
			if again, _, err := l.mutate(given, bothOurs[:1], nil); err != nil || !reflect.DeepEqual(again, given) {
				t.Errorf("adding again: %v: %v", again, err)
			}
			left := strings.Replace(c.left, "-", c.before, 1)
			if c.left != "-" {
				left = c.left
			}
			taken, _, err := l.mutate(given, nil, bothOurs[:1])
			if want := configMap(l.ref, map[string]string{"mapRoles": left}); err != nil || !reflect.DeepEqual(meaning(t, taken), meaning(t, want)) {
				t.Errorf("after removal: got\n%v\nwant\n%v: %v", taken, want, err)
			}
			if got := stringAt(taken, "data", "mapRoles"); strings.Count(got, "# by hand") != strings.Count(left, "# by hand") {
				t.Errorf("a comment is missing:\n%s", got)
			}
			if stringAt(taken, "metadata", "annotations", annotationOwnership) != "" {
				t.Error("the annotation remains")
			}
		})
	}
}

// TestOurGroupsAreUpdated: groups of ours that are no longer wanted are removed, and handwritten ones stay.
func TestOurGroupsAreUpdated(t *testing.T) {
	l := awsAuthBackend()
	masters := testUser
	masters.Groups = []string{"system:masters", "cast:console"}
	o, _, err := l.mutate(nil, []Identity{masters}, nil)
	if err != nil {
		t.Fatal(err)
	}
	set(o, stringAt(o, "data", "mapUsers")+"    - by-hand\n", "data", "mapUsers")

	less, remarks, err := l.mutate(o, []Identity{testUser}, nil)
	if got := stringAt(less, "data", "mapUsers"); err != nil || strings.Contains(got, "masters") || !strings.Contains(got, "- cast:console\n    - by-hand\n") {
		t.Errorf("%v\n%s", err, got)
	}
	if len(remarks) != 1 || !strings.Contains(remarks[0].Why, "by-hand") {
		t.Errorf("remarks: %v", remarks)
	}
	nobody := testUser
	nobody.Groups = nil
	for name, id := range map[string]Identity{"offboarded": testUser, "without groups": nobody} {
		taken, remarks, err := l.mutate(less, nil, []Identity{id})
		if got := stringAt(taken, "data", "mapUsers"); err != nil || strings.Contains(got, "console") || !strings.Contains(got, "by-hand") {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
		if len(remarks) != 1 || !strings.Contains(remarks[0].Why, "by-hand") {
			t.Errorf("%s: remarks: %v", name, remarks)
		}
	}

	renamed := testUser
	renamed.Username = "another"
	o, _, err = l.mutate(nil, []Identity{testUser}, nil)
	if err != nil {
		t.Fatal(err)
	}
	o, _, err = l.mutate(o, []Identity{renamed}, nil)
	if got := stringAt(o, "data", "mapUsers"); err != nil || got != strings.Replace(userEntry, "username: cast-kops", "username: another", 1) {
		t.Errorf("renamed: %v\n%s", err, got)
	}
	if o, _, err = l.mutate(o, nil, []Identity{renamed}); err != nil || o != nil {
		t.Errorf("renamed and removed: %v, %v", o, err)
	}
}

// TestMissingAnnotation: without it, only an entry exactly as we create it is ours.
func TestMissingAnnotation(t *testing.T) {
	l := awsAuthBackend()
	forget := func(o object) object {
		o = o.DeepCopy()
		unset(o, "metadata", "annotations", annotationOwnership)
		return o
	}
	given, _, err := l.mutate(configMap(l.ref, map[string]string{"mapRoles": theirRoles}), bothOurs, nil)
	if err != nil {
		t.Fatal(err)
	}
	theirs := meaning(t, configMap(l.ref, map[string]string{"mapRoles": theirRoles}))
	taken, _, err := l.mutate(forget(given), nil, bothOurs)
	if err != nil || !reflect.DeepEqual(meaning(t, taken), theirs) {
		t.Errorf("%v\n%v", err, taken)
	}
	for name, entry := range map[string]string{
		"another group":       strings.Replace(roleEntry, "cast:spot-handler", "another", 1),
		"an additional group": roleEntry + "    - another\n",
		"another username":    strings.Replace(roleEntry, "kops-spot", "boss", 1),
	} {
		stranger := configMap(l.ref, map[string]string{"mapRoles": entry})
		taken, remarks, err := l.mutate(stranger, nil, bothOurs)
		if err != nil || !reflect.DeepEqual(taken, stranger) || len(remarks) != 1 {
			t.Errorf("%s: %v: %v\n%v", name, err, remarks, taken)
		}
	}
	twice := configMap(l.ref, map[string]string{"mapRoles": roleEntry + theirRoles + roleEntry})
	if taken, _, err = l.mutate(twice, nil, bothOurs); err != nil || !reflect.DeepEqual(meaning(t, taken), theirs) {
		t.Errorf("twice: %v\n%v", err, taken)
	}
	broken := configMap(l.ref, map[string]string{"mapRoles": roleEntry})
	set(broken, "{", "metadata", "annotations", annotationOwnership)
	if _, _, err := l.mutate(broken, bothOurs, nil); err == nil || !strings.Contains(err.Error(), annotationOwnership) {
		t.Errorf("an invalid annotation: %v", err)
	}
}

// TestInvalidText is an error with the location and what to do.
func TestInvalidText(t *testing.T) {
	for name, c := range map[string]struct {
		backend configMapBackend
		text    string
		want    []string
	}{
		"no YAML":         {awsAuthBackend(), "- rolearn: a\n  username: b: c\n", []string{"adding arn:aws:iam::111122223333:role/Ours to mapRoles of ConfigMap kube-system/aws-auth: nothing was changed", "line 2", "add it by hand: {rolearn"}},
		"no list":         {awsAuthBackend(), "rolearn: a\n", []string{"line 1", "it should be a list"}},
		"an alias":        {awsAuthBackend(), "- &a {rolearn: x, groups: &g [y]}\n- rolearn: arn:aws:iam::111122223333:role/Ours\n  groups: *g\n", []string{"nothing was changed: an edit would change it for others: add it by hand: {rolearn: 'arn:aws:iam::111122223333:role/Ours'"}},
		"no YAML, a file": {fileBackend(configMapRef("aws-iam-authenticator"), "c"), "server: {\n", []string{"to config.yaml.server.mapRoles of ConfigMap kube-system/aws-iam-authenticator", "line"}},
	} {
		o := configMap(c.backend.ref, map[string]string{"mapRoles": c.text, fileKey: c.text})
		_, _, err := c.backend.mutate(o, bothOurs, nil)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v; want %q", name, err, want)
			}
		}
		if _, _, err := c.backend.mutate(o, nil, bothOurs); name == "no list" && err != nil {
			t.Errorf("%s: removal without an entry of ours: %v", name, err)
		}
	}
}
