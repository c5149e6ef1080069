package onboard

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/kubeadmin"
)

// take has the ConfigMap list the identities no more, and leaves all else in it as it is; nil if it is to go, which it is
// only if it is ours and there is nothing of others in it.
func (l listing) take(now kubeadmin.Object, ids []Identity) (kubeadmin.Object, change.Plan, error) {
	if now == nil || len(ids) == 0 {
		return now, nil, nil
	}
	next := now.Clone()
	n, err := noteOf(next)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", l.ref, err)
	}
	var remarks change.Plan
	for _, id := range ids {
		more, err := l.takeOne(next, &n, id)
		if err != nil {
			return nil, nil, err
		}
		remarks = append(remarks, more...)
	}
	if n.Created && l.bare(next) {
		return nil, remarks, nil
	}
	return next, remarks, n.write(next)
}

// bare reports whether the texts are those of a ConfigMap that has just been made.
func (l listing) bare(o kubeadmin.Object) bool {
	texts := o.Texts("data")
	for key, text := range l.initial {
		if texts[key] != text {
			return false
		}
		delete(texts, key)
	}
	for _, text := range texts {
		if strings.TrimSpace(text) != "" {
			return false
		}
	}
	return o.At("binaryData") == nil
}

func (l listing) takeOne(o kubeadmin.Object, n *note, id Identity) (change.Plan, error) {
	p, arn := l.place(id.Kind), id.canonical()
	noted := n.of(arn)
	n.keep(arn, grant{})
	text, _ := listText(o, p.key)
	if !strings.Contains(strings.ToLower(text), strings.ToLower(arn)) {
		return nil, nil // a text without it need not be understood
	}
	y, entries, err := l.open(o, p)
	if err != nil {
		return nil, err
	}
	var remarks change.Plan
	at := placesOf(entries, arn)
	for _, i := range slices.Backward(at) {
		e := entries[i]
		t := e.take(id, noted)
		if t.remove {
			y.text, err = y.cut(p.path, i)
			if err == nil {
				y, err = readYAML(y.text)
			}
		} else {
			groups := append(slices.Clone(p.path), i, "groups")
			if y, err = y.regroup(groups, e.groups, t); err == nil && len(t.foreign) == 0 {
				y, err = y.cutNull(groups)
			}
			remarks = append(remarks, change.Change{Verb: change.Leave, Kind: id.title(), Name: id.ARN,
				Why: fmt.Sprintf("somebody else has given it %s in %s: remove the entry there if nobody needs it",
					strings.Join(orNothing(t.foreign), ", "), p.name(l.ref))})
		}
		if err != nil {
			return nil, fmt.Errorf("removing %s from %s: nothing has been changed: %w", arn, p.name(l.ref), err)
		}
	}
	return remarks, l.restore(o, y, n, p)
}

// cutNull is the text without a key that says nothing; one that is written in brackets stays.
func (y yamlText) cutNull(path yamlPath) (yamlText, error) {
	if at, err := y.node(path); err != nil || !isNull(at) {
		return y, nil
	}
	next, err := y.cutKey(path)
	if errors.Is(err, errByHand) {
		return y, nil
	}
	if err != nil {
		return y, err
	}
	return readYAML(next)
}

func orNothing(groups []string) []string {
	if len(groups) == 0 {
		return []string{"a name"}
	}
	return groups
}

// restore puts the text back, and where the list is empty that we have begun, also what there was before.
func (l listing) restore(o kubeadmin.Object, y yamlText, n *note, p listPlace) error {
	y, err := y.unmake(n, p.path)
	if err != nil {
		return fmt.Errorf("removing what is left of %s: nothing has been changed: %w", p.name(l.ref), err)
	}
	was, replaced := n.Before[p.key]
	if !replaced || strings.TrimSpace(y.text) != "" {
		o.Set(y.text, "data", p.key)
		return nil
	}
	delete(n.Before, p.key)
	o.Unset("data", p.key)
	if was != nil {
		o.Set(*was, "data", p.key)
	}
	return nil
}

// unmake removes the keys that are ours from the end of a path to its beginning, as long as there is nothing in them.
func (y yamlText) unmake(n *note, path yamlPath) (yamlText, error) {
	for i := len(path); i > 0; i-- {
		name := joined(path[:i])
		if !slices.Contains(n.Made, name) {
			break
		}
		at, err := y.node(path[:i])
		if err != nil || len(at.Content) > 0 || at.Value != "" {
			break
		}
		next, err := y.cutKey(path[:i])
		switch {
		case errors.Is(err, errByHand):
			return y, nil // an empty list in brackets says nothing, and may stay
		case err != nil:
			return y, err
		}
		n.unmake(name)
		if y, err = readYAML(next); err != nil {
			return y, err
		}
	}
	return y, nil
}
