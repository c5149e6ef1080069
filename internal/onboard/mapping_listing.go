package onboard

import (
	"fmt"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/kubeadmin"
)

// fileKey is where in its ConfigMap the authenticator's file is.
const fileKey = "config.yaml"

// listing is a ConfigMap with lists of who is who.
type listing struct {
	backend Backend
	ref     kubeadmin.Ref
	initial map[string]string // its texts where there is none yet
}

func awsAuthListing() listing { return listing{backend: EKSConfigMap, ref: awsAuthRef} }

// fileListing is of the authenticator's file. One that is made anew has to name the cluster.
func fileListing(ref kubeadmin.Ref, clusterID string) listing {
	return listing{backend: MountedFile, ref: ref, initial: map[string]string{fileKey: "clusterID: " + clusterID + "\n"}}
}

// listPlace is where a ConfigMap lists the identities of a kind: a text of it, and a path in that text.
type listPlace struct {
	key    string
	path   yamlPath
	arnKey string
}

func (l listing) place(kind IdentityKind) listPlace {
	list, arnKey := "mapRoles", "roleARN"
	if kind == UserIdentity {
		list, arnKey = "mapUsers", "userARN"
	}
	if l.backend == EKSConfigMap {
		return listPlace{key: list, arnKey: strings.ToLower(arnKey)}
	}
	return listPlace{key: fileKey, path: yamlPath{"server", list}, arnKey: arnKey}
}

// name is the place as people find it.
func (p listPlace) name(ref kubeadmin.Ref) string {
	steps := []string{p.key}
	for _, step := range p.path {
		steps = append(steps, fmt.Sprint(step))
	}
	return strings.Join(steps, ".") + " of " + ref.String()
}

// nothings are texts that the authenticator skips, or reads as no list; none of them can be added to.
var nothings = []string{"[]", "null", "~", "``", `""`, "''"}

// listText is the text of a key. replaced says that it is to be replaced as a whole, for it says nothing.
func listText(o kubeadmin.Object, key string) (text string, replaced bool) {
	text, there := o.At("data", key).(string)
	if !there || slices.Contains(nothings, strings.TrimSpace(text)) {
		return "", true
	}
	return text, false
}

// open reads the list at a place.
func (l listing) open(o kubeadmin.Object, p listPlace) (y yamlText, entries []entry, err error) {
	text, _ := listText(o, p.key)
	y, err = readYAML(text)
	if err != nil {
		return y, nil, fmt.Errorf("reading %s: nothing has been changed: %w", p.name(l.ref), err)
	}
	list, err := y.list(p.path)
	if err != nil {
		return y, nil, fmt.Errorf("reading %s: nothing has been changed: %w", p.name(l.ref), err)
	}
	for _, n := range list {
		e, _ := readEntry(n) // what is no entry takes its place all the same
		entries = append(entries, e)
	}
	return y, entries, nil
}

// placesOf are the entries of an ARN, by their place in the list.
func placesOf(entries []entry, arn string) (at []int) {
	for i, e := range entries {
		if strings.EqualFold(e.arn, arn) {
			at = append(at, i)
		}
	}
	return at
}

// catches reports whether the listing decides about an identity: by an entry, or by letting in its whole account.
func (l listing) catches(o kubeadmin.Object, id Identity) (bool, error) {
	p := l.place(id.Kind)
	_, entries, err := l.open(o, p)
	if err != nil || len(placesOf(entries, id.canonical())) > 0 {
		return err == nil, err
	}
	accounts := listPlace{key: "mapAccounts"}
	if l.backend == MountedFile {
		accounts = listPlace{key: fileKey, path: yamlPath{"server", "mapAccounts"}}
	}
	y, _, err := l.open(o, accounts)
	if err != nil {
		return false, err
	}
	list, err := y.list(accounts.path)
	for _, n := range list {
		if n.Value == accountOf(id.ARN) {
			return true, err
		}
	}
	return false, err
}

// give has the ConfigMap list the identities.
func (l listing) give(now kubeadmin.Object, ids []Identity) (kubeadmin.Object, change.Plan, error) {
	next := now.Clone()
	created := next == nil
	if created {
		next = l.ref.New()
		for key, text := range l.initial {
			next.Set(text, "data", key)
		}
	}
	n, err := noteOf(next)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", l.ref, err)
	}
	n.Created = n.Created || created
	var remarks change.Plan
	for _, id := range ids {
		more, err := l.giveOne(next, &n, id)
		if err != nil {
			return nil, nil, err
		}
		remarks = append(remarks, more...)
	}
	return next, remarks, n.write(next)
}

func (l listing) giveOne(o kubeadmin.Object, n *note, id Identity) (change.Plan, error) {
	p, arn := l.place(id.Kind), id.canonical()
	y, entries, err := l.open(o, p)
	if err != nil {
		return nil, err
	}
	fresh := entryNode(p.arnKey, arn, id.Username, id.Groups)
	byHand := func(err error) error {
		by, _ := flow(fresh)
		return fmt.Errorf("adding %s to %s: nothing has been changed: %w: put in %s", arn, p.name(l.ref), err, by)
	}
	at := placesOf(entries, arn)
	if len(at) == 0 {
		l.noteBefore(o, y, n, p)
		if y.text, err = y.add(p.path, fresh); err != nil {
			return nil, byHand(err)
		}
		n.keep(arn, grant{Username: id.Username, Groups: id.Groups})
		o.Set(y.text, "data", p.key)
		return nil, nil
	}
	last := at[len(at)-1]
	t := entries[last].give(id, n.of(arn))
	if t.remove {
		if y.text, err = y.cut(p.path, last); err == nil {
			y, err = readYAML(y.text)
		}
		if err == nil {
			y.text, err = y.add(p.path, fresh)
		}
	} else {
		y, err = y.regroup(append(slices.Clone(p.path), last, "groups"), entries[last].groups, t)
	}
	if err != nil {
		return nil, byHand(err)
	}
	n.keep(arn, t.grant)
	if !t.none() {
		o.Set(y.text, "data", p.key)
	}
	return l.remarks(id, p, t.foreign, len(at)), nil
}

// regroup is the text with groups taken from an entry, and others given to it.
func (y yamlText) regroup(path yamlPath, groups []string, t turn) (yamlText, error) {
	for i := len(groups) - 1; i >= 0; i-- {
		if !slices.Contains(t.drop, groups[i]) {
			continue
		}
		next, err := y.cut(path, i)
		if err != nil {
			return y, err
		}
		if y, err = readYAML(next); err != nil {
			return y, err
		}
	}
	for _, g := range t.add {
		next, err := y.add(path, yamlString(g))
		if err != nil {
			return y, err
		}
		if y, err = readYAML(next); err != nil {
			return y, err
		}
	}
	return y, nil
}

// remarks tell of what in an entry is others'.
func (l listing) remarks(id Identity, p listPlace, foreign []string, times int) (said change.Plan) {
	leave := func(format string, args ...any) {
		said = append(said, change.Change{Verb: change.Leave, Kind: id.title(), Name: id.ARN, Why: fmt.Sprintf(format, args...)})
	}
	if len(foreign) > 0 {
		leave("somebody else has given it %s in %s, and so it stays there", strings.Join(foreign, ", "), p.name(l.ref))
	}
	if times > 1 {
		leave("there are %d entries of it in %s: the authenticator goes by the last one", times, p.name(l.ref))
	}
	return said
}

// noteBefore notes what an entry is put into where there is no list yet.
func (l listing) noteBefore(o kubeadmin.Object, y yamlText, n *note, p listPlace) {
	if _, replaced := listText(o, p.key); replaced {
		n.Before[p.key] = nil
		if was, there := o.At("data", p.key).(string); there {
			n.Before[p.key] = &was
		}
	}
	for i := range p.path {
		if at, err := y.node(p.path[:i+1]); err != nil || at == nil {
			n.make(joined(p.path[:i+1]))
		}
	}
}

func joined(path yamlPath) string {
	var steps []string
	for _, step := range path {
		steps = append(steps, fmt.Sprint(step))
	}
	return strings.Join(steps, ".")
}
