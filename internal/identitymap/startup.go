package identitymap

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"go.yaml.in/yaml/v3"
)

// An authenticator that restarts reads its whole file, and does not start if anything in it is wrong: then nobody can
// authenticate with IAM any more. The rules are those of aws-iam-authenticator v0.7.5: a decoder that converts scalars,
// makes a list of a single value and ignores unknown keys, and the validation of each mapping
// (https://github.com/kubernetes-sigs/aws-iam-authenticator/blob/v0.7.5/cmd/aws-iam-authenticator/root.go and
// pkg/mapper/file/mapper.go there).

// partitions are those that the authenticator knows.
var partitions = []string{"aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b", "aws-iso-e", "aws-iso-f"}

// principals are the kinds of identities, by service, that the authenticator accepts in an ARN.
var principals = map[string][]string{"iam": {"role", "user", "root"}, "sts": {"federated-user", "assumed-role"}}

var (
	accountID         = regexp.MustCompile(`^[0-9]{12}$`)
	permissionSetName = regexp.MustCompile(`^[\w+=,.@-]{1,32}$`)
)

// CheckFile returns an error that names the line if an authenticator that runs with these flags would not start with
// the file. Flags are those of its command line, without dashes.
func CheckFile(text string, flags map[string][]string) error {
	doc, _, err := readYAML(text)
	if err != nil {
		return err
	}
	root, err := fieldsOf(doc.Content[0])
	if err != nil {
		return err
	}
	server, err := fieldsOf(root["server"])
	if err != nil {
		return fmt.Errorf("%sserver: %w", lineOf(root["server"]), err)
	}
	a := readSettings(flags, root)
	switch {
	case a.clusterID == "":
		return fmt.Errorf("%sclusterID is empty", lineOf(root["clusterid"]))
	case !slices.Contains(partitions, a.partition):
		return fmt.Errorf("%sunknown partition %q", lineOf(server["partition"]), a.partition)
	}
	for i, mode := range a.modes {
		if pickUp[mode] == "" && mode != dynamicFile || slices.Contains(a.modes[:i], mode) {
			return fmt.Errorf("%sthe backend mode %q is unknown or a duplicate", lineOf(server["backendmode"]), mode)
		}
	}
	if path, _ := scalarOf(server["dynamicfilepath"]); slices.Contains(a.modes, dynamicFile) != (path != "") {
		return fmt.Errorf("%sthe backend %s and server.dynamicFilePath need each other",
			lineOf(server["dynamicfilepath"]), dynamicFile)
	}
	mounted := slices.Contains(a.modes, MountedFile)
	for _, list := range []struct {
		key   string
		check func(*yaml.Node, bool) error
	}{{"mapRoles", checkRole}, {"mapUsers", checkUser}, {"mapAccounts", checkScalar},
		{"reservedPrefixConfig", checkReservedPrefix}} {
		for _, item := range itemsOf(server[strings.ToLower(list.key)]) {
			if err := list.check(item, mounted); err != nil {
				return fmt.Errorf("%sin server.%s: %w", lineOf(item), list.key, err)
			}
		}
	}
	return nil
}

// checkRole checks an item of mapRoles. The values matter only if the file is a backend.
func checkRole(item *yaml.Node, mounted bool) error {
	role, values, err := mappingOf(item, "rolearn")
	if err != nil {
		return err
	}
	sso, err := fieldsOf(role["sso"])
	if err != nil {
		return err
	}
	of := map[string]string{}
	for _, key := range []string{"permissionsetname", "accountid", "partition"} {
		if of[key], err = scalarOf(sso[key]); err != nil {
			return err
		}
	}
	hasSSO := resolved(role["sso"]) != nil
	switch {
	case !mounted:
		return nil
	case values["rolearn"] == "" && !hasSSO:
		return missing("roleARN", role)
	case values["rolearn"] != "" && hasSSO:
		return errors.New("it has both roleARN and sso")
	case !hasSSO:
		return checkARN(values["rolearn"])
	case !accountID.MatchString(of["accountid"]):
		return fmt.Errorf("%q is not the ID of an AWS account: quote it", of["accountid"])
	case !permissionSetName.MatchString(of["permissionsetname"]):
		return fmt.Errorf("%q is not the name of a permission set", of["permissionsetname"])
	case of["partition"] != "" && !slices.Contains(partitions[:5], of["partition"]):
		return fmt.Errorf("unknown partition %q", of["partition"])
	}
	return nil
}

func checkUser(item *yaml.Node, mounted bool) error {
	user, values, err := mappingOf(item, "userarn")
	switch {
	case err != nil || !mounted:
		return err
	case values["userarn"] == "":
		return missing("userARN", user)
	}
	return checkARN(strings.ToLower(values["userarn"]))
}

func checkScalar(item *yaml.Node, _ bool) error {
	_, err := scalarOf(item)
	return err
}

func checkReservedPrefix(item *yaml.Node, _ bool) error {
	fields, err := fieldsOf(item)
	for _, n := range append(itemsOf(fields["usernameprefixreservelist"]), fields["backendmode"]) {
		err = errors.Join(err, checkScalar(n, false))
	}
	return err
}

// mappingOf reads what mappings of roles and users have in common.
func mappingOf(item *yaml.Node, arnKey string) (fields map[string]*yaml.Node, values map[string]string, err error) {
	fields, err = fieldsOf(item)
	values = map[string]string{}
	for _, key := range []string{arnKey, "username", "userid"} {
		if err == nil {
			values[key], err = scalarOf(fields[key])
		}
	}
	for _, group := range itemsOf(fields["groups"]) {
		if err == nil {
			err = checkScalar(group, false)
		}
	}
	return fields, values, err
}

// missing says that a mapping has no ARN, and which unknown keys it has instead.
func missing(key string, fields map[string]*yaml.Node) error {
	known := []string{strings.ToLower(key), "sso", "username", "groups", "userid"}
	if unknown := subtract(slices.Sorted(maps.Keys(fields)), known); len(unknown) > 0 {
		return fmt.Errorf("it has no %s: misspelt as %s?", key, strings.Join(unknown, " or "))
	}
	return fmt.Errorf("it has no %s", key)
}

func checkARN(text string) error {
	a, err := arn.Parse(text)
	kind, rest, _ := strings.Cut(a.Resource, "/")
	switch {
	case err != nil:
		return fmt.Errorf("%q is not an ARN", text)
	case !slices.Contains(partitions, a.Partition):
		return fmt.Errorf("%s has the unknown partition %q", text, a.Partition)
	case !slices.Contains(principals[a.Service], kind), kind == "assumed-role" && !strings.Contains(rest, "/"):
		return fmt.Errorf("%s is not the ARN of a role, a user or a session", text)
	}
	return nil
}

// resolved returns what a node refers to; nil for null and for no node.
func resolved(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return nil
	}
	return n
}

// lineOf begins an error.
func lineOf(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	return fmt.Sprintf("line %d: ", n.Line)
}

// fieldsOf returns the values of a mapping by their keys in lower case.
func fieldsOf(n *yaml.Node) (map[string]*yaml.Node, error) {
	fields := map[string]*yaml.Node{}
	n = resolved(n)
	switch {
	case n == nil:
		return fields, nil
	case n.Kind != yaml.MappingNode:
		return fields, errors.New("it should be a mapping")
	}
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].ShortTag() != "!!merge" {
			continue
		}
		for _, other := range itemsOf(n.Content[i+1]) {
			merged, err := fieldsOf(other)
			if err != nil {
				return nil, err
			}
			maps.Copy(merged, fields) // the first one wins
			fields = merged
		}
	}
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].ShortTag() != "!!merge" {
			fields[strings.ToLower(n.Content[i].Value)] = n.Content[i+1]
		}
	}
	return fields, nil
}

// itemsOf returns the items of a list; a single value is a list of one.
func itemsOf(n *yaml.Node) []*yaml.Node {
	is := resolved(n)
	switch {
	case is == nil, is.Kind == yaml.MappingNode && len(is.Content) == 0:
		return nil
	case is.Kind == yaml.SequenceNode:
		return is.Content
	}
	return []*yaml.Node{n}
}

// scalarOf returns a scalar as text; empty for null.
func scalarOf(n *yaml.Node) (text string, err error) {
	n = resolved(n)
	switch {
	case n == nil:
		return "", nil
	case n.Kind != yaml.ScalarNode:
		return "", fmt.Errorf("line %d: it should be a string", n.Line)
	}
	var v any
	if err := n.Decode(&v); err != nil {
		return "", err
	}
	return fmt.Sprint(v), nil
}
