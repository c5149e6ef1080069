package onboard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

const (
	maxKeys = 2 // IAM's limit for a user

	// replacesNone is the value of tagKeyReplaces for a user's first key.
	replacesNone = "none"

	deleteLimit = 10 * time.Second

	// A new key may take seconds to work everywhere.
	acceptLimit = time.Minute
	acceptPoll  = time.Second
)

// keys are a user's access keys.
type keys struct {
	user    string
	all     []awsadmin.Key
	stored  string // the one in the store; empty for none
	where   string // its store, if that is not the wanted one
	pending string // tagKeyReplaces
}

func findKeys(w Spec, s State) (k keys, err error) {
	k.user = iam.UserName(w.Environment.Cluster)
	if s.User != nil {
		k.user, k.all, k.pending = s.User.Name, s.User.Keys, s.User.Tags[tagKeyReplaces]
	}
	held, err := w.Store.Holds(s)
	switch {
	case err != nil:
		return k, err
	case k.has(held):
		k.stored = held
		return k, nil
	}
	if _, inFile := w.Store.(InFile); inFile && held != "" {
		return k, fmt.Errorf("%s has the access key %s, which is not one of user %s: it is not overwritten: "+
			"delete it, or choose another file", w.Store, held, iam.UserName(w.Environment.Cluster))
	}
	for _, other := range []KeyStore{InSecretsManager{w.Environment.Cluster}, InConsole{}} {
		if held, err := other.Holds(s); err != nil {
			return k, err
		} else if k.has(held) {
			k.stored, k.where = held, other.String()
			return k, nil
		}
	}
	return k, nil
}

func (k keys) has(id string) bool {
	return id != "" && slices.ContainsFunc(k.all, func(one awsadmin.Key) bool { return one.ID == id })
}

// planKey creates a key if there is none, keeps a stored one, and deletes one that somebody may use only with
// --rotate-key. First it finishes a rotation that was interrupted.
func planKey(w Spec, s State) ([]step, error) {
	k, err := findKeys(w, s)
	if err != nil {
		return nil, err
	}
	var steps []step
	switch stored := k.stored != "" && k.stored != k.pending; {
	case k.pending != "" && !stored:
		steps = k.deleteUnstored()
	case k.has(k.pending): // the new key is stored, and the old one not yet deleted
		why := k.stored + " replaces it, and an interrupted run has not deleted it"
		return append(k.deactivate(k.pending, why), k.clearTag()), nil
	}
	switch {
	case len(k.all) == 0:
		return append(steps, k.renew(w, s, "")...), nil
	case w.RotateKey && len(k.all) == maxKeys:
		which := ""
		if k.stored != "" {
			which = "; " + k.stored + " is the stored one"
		}
		return nil, fmt.Errorf("user %s has two access keys, %s and %s, and IAM allows no third%s: find out who uses the "+
			"other, delete it with aws iam delete-access-key --user-name %s --access-key-id ID, and run this again",
			k.user, k.all[0].ID, k.all[1].ID, which, k.user)
	case w.RotateKey:
		return append(steps, k.renew(w, s, k.all[0].ID)...), nil
	}
	steps = append(steps, k.kept(w)...)
	if k.pending != "" {
		steps = append(steps, k.clearTag())
	}
	return steps, nil
}

// deleteUnstored deletes keys that an interrupted run has created and not stored.
func (k *keys) deleteUnstored() (steps []step) {
	var rest []awsadmin.Key
	for _, one := range k.all {
		if one.ID == k.pending || one.Used { // a used key is somebody else's
			rest = append(rest, one)
			continue
		}
		steps = append(steps, newStep(change.Delete, kindKey, one.ID,
			"an interrupted run has created it and not stored it: nobody has its secret", awsadmin.DeleteKey(k.user, one.ID)))
	}
	k.all = rest
	return steps
}

// renew creates and stores a key before it deletes the old one, if any. A tag tells the next run about a key that this
// run can neither store nor delete.
func (k keys) renew(w Spec, s State, old string) []step {
	var made awsadmin.NewKey // passed from step to step
	steps, stored := w.Store.steps(w, s, &made)
	of, replaces := "of "+k.user, cmp.Or(old, replacesNone)
	if k.pending != replaces {
		steps = append(steps, newStep(change.Tag, kindUser, k.user, tagKeyReplaces+"="+replaces+
			": if this run is interrupted, the next one finishes the rotation",
			awsadmin.TagUser(k.user, map[string]string{tagKeyReplaces: replaces})))
	}
	steps = append(steps,
		step{Change: change.Change{Verb: change.Create, Kind: kindKey, Name: of},
			Write: func(ctx context.Context, r *Onboarding) (err error) {
				if err = w.Store.Ready(); err == nil {
					made, err = r.AWS.CreateKey(ctx, k.user)
				}
				return err
			}},
		step{Change: change.Change{Verb: change.Store, Kind: kindKey, Name: of, Why: "in " + w.Store.String()},
			Write: func(ctx context.Context, r *Onboarding) error { return k.store(ctx, r, made) }})
	steps = append(steps, stored...)
	last := []step{k.clearTag()}
	if old != "" {
		last = append(k.deactivate(old, "the new one replaces it; whoever uses the old one must switch"), last...)
	}
	write := last[0].Write
	last[0].Write = func(ctx context.Context, r *Onboarding) error {
		if err := waitUntilAccepted(ctx, r.AWS, made); err != nil {
			return err
		}
		return write(ctx, r)
	}
	return append(steps, last...)
}

// store stores a key, or deletes it if the store certainly does not have it.
func (k keys) store(ctx context.Context, r *Onboarding, made awsadmin.NewKey) error {
	err := r.Spec.Store.Put(ctx, r.AWS, made)
	switch {
	case err == nil:
		r.Made = &made
		return nil
	case !errors.Is(err, ErrNotStored):
		return fmt.Errorf("%s may or may not have access key %s: run this again: %w", r.Spec.Store, made.ID, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteLimit)
	defer cancel()
	return errors.Join(err, r.AWS.Do(ctx, awsadmin.DeleteKey(k.user, made.ID)))
}

func (k keys) deactivate(id, why string) []step {
	return []step{newStep(change.Deactivate, kindKey, id, why, awsadmin.DeactivateKey(k.user, id)),
		newStep(change.Delete, kindKey, id, "", awsadmin.DeleteKey(k.user, id))}
}

func (k keys) clearTag() step {
	return newStep(change.Untag, kindUser, k.user, tagKeyReplaces+": the rotation is complete",
		awsadmin.UntagUser(k.user, tagKeyReplaces))
}

// waitUntilAccepted waits until AWS accepts the key: before that, the old one must stay.
func waitUntilAccepted(ctx context.Context, aws *awsadmin.Account, k awsadmin.NewKey) error {
	var refused error
	if wait.PollUntilContextTimeout(ctx, acceptPoll, acceptLimit, true, func(ctx context.Context) (bool, error) {
		refused = aws.KeyWorks(ctx, k)
		return refused == nil, nil
	}) != nil {
		return fmt.Errorf("access key %s is stored, but AWS does not accept it yet: run this again in a minute: %w",
			k.ID, refused)
	}
	return nil
}

// kept are the rows of keys that stay.
func (k keys) kept(w Spec) (steps []step) {
	const renew = "--rotate-key replaces it"
	for _, one := range k.all {
		verb, why := leave, ""
		switch remove := "aws iam delete-access-key --user-name " + k.user + " --access-key-id "; {
		case one.ID == k.stored && !one.Active:
			why = "it is inactive: reactivate it with aws iam update-access-key --user-name " + k.user + " --access-key-id " +
				one.ID + " --status Active, or " + renew
		case one.ID == k.stored && k.where != "":
			why = "its secret is in " + k.where + " and not in " + w.Store.String() + ": " + renew
		case one.ID == k.stored:
			verb, why = keep, "its secret is in "+w.Store.String()
		case len(k.all) == maxKeys && k.stored != "":
			why = "it is not ours: if nobody uses it, delete it with " + remove + one.ID
		case len(k.all) == maxKeys:
			why = "its secret is in no known store, and IAM allows no third key: delete an unused one with " + remove +
				"ID, and run this with --rotate-key"
		default:
			why = "its secret is in no known store: keep it if you have the secret; otherwise " + renew
		}
		steps = append(steps, verb(kindKey, one.ID, why))
	}
	return steps
}
