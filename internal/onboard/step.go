package onboard

import (
	"context"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

type step = change.Step[*Onboarding]

// act is the step of one call.
func newStep(verb change.Verb, kind, name, why string, c awsadmin.Call) step {
	return step{Change: change.Change{Verb: verb, Kind: kind, Name: name, Why: why},
		Write: func(ctx context.Context, r *Onboarding) error { return r.AWS.Do(ctx, c) }}
}

func keep(kind, name, why string) step {
	return step{Change: change.Change{Verb: change.Keep, Kind: kind, Name: name, Why: why}}
}

func leave(kind, name, why string) step {
	return step{Change: change.Change{Verb: change.Leave, Kind: kind, Name: name, Why: why}}
}

// rewrite is the step of a document that is there and is to have this text, by the call that writes it.
func updateDocument(kind, name, why, now, text string, c awsadmin.Call) step {
	if awsadmin.SameDocument(now, text) {
		return keep(kind, name, why)
	}
	one := newStep(change.Update, kind, name, why, c)
	one.Diff = awsadmin.DiffDocuments(now, text)
	return one
}
