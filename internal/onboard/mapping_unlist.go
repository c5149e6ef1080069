package onboard

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/castai/kops-spot/internal/change"
)

// take has the ConfigMap list the identities no more, and leaves all else in it as it is; nil if it is to go, which it is
// only if it is ours and there is nothing of others in it.
func (l listing) take(now object, ids []Identity) (object, change.Plan, error) {
	if now == nil || len(ids) == 0 {
		return now, nil, nil
	}
	next := now.DeepCopy()
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
func (l listing) bare(o object) bool {
	texts := textsAt(o, "data")
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
	return o.Object["binaryData"] == nil
}

func (l listing) takeOne(o object, n *note, id Identity) (remarks change.Plan, err error) {
	p, arn := l.place(id.Kind), id.canonical()
	noted := n.of(arn)
	n.keep(arn, grant{})
	text := listText(o, p.key)
	if !strings.Contains(strings.ToLower(text), strings.ToLower(arn)) {
		return nil, nil // a text without it need not be understood
	}
	next, err := editList(text, p.path, arn, func(list *yaml.Node, entries []entry) error {
		for _, i := range slices.Backward(placesOf(entries, arn)) {
			t := entries[i].take(id, noted)
			if t.remove {
				list.Content = slices.Delete(list.Content, i, i+1)
				continue
			}
			remarks = append(remarks, change.Change{Verb: change.Leave, Kind: id.title(), Name: id.ARN,
				Why: fmt.Sprintf("somebody else has given it %s in %s: remove the entry there if nobody needs it",
					strings.Join(orNothing(t.foreign), ", "), p.name(l.ref))})
			if err := regroup(list.Content[i], t); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("removing %s from %s: nothing was changed: %w: remove it by hand", arn, p.name(l.ref), err)
	case strings.TrimSpace(next) == "[]":
		unset(o, "data", p.key)
	default:
		set(o, next, "data", p.key)
	}
	return remarks, nil
}

func orNothing(groups []string) []string {
	if len(groups) == 0 {
		return []string{"a name"}
	}
	return groups
}
