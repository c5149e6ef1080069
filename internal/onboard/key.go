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
	maxKeys = 2 // IAM lets a user have no more

	// replacesNone is what tagKeyReplaces says where a user's first key is made.
	replacesNone = "none"

	takeBackLimit = 10 * time.Second

	// IAM says that a new key may take seconds until it is accepted everywhere.
	knownLimit = time.Minute
	knownPause = time.Second
)

// keys is what is known of a user's access keys.
type keys struct {
	user    string
	all     []awsadmin.Key
	stored  string // the one whose secret is in the store; empty if none of them is
	where   string // that is in another store than is wanted: which; empty otherwise
	pending string // what tagKeyReplaces says; empty without
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
		return k, fmt.Errorf("%s holds the access key %s, which is none of the user %s: it is not overwritten: remove it, or choose another file",
			w.Store, held, iam.UserName(w.Environment.Cluster))
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

// planKey makes a key where there is none, keeps one whose secret is stored, and never deletes one that somebody may use,
// unless that was asked for. What a run has left that was broken off while it made a key, it finishes first.
func planKey(w Spec, s State) ([]step, error) {
	k, err := findKeys(w, s)
	if err != nil {
		return nil, err
	}
	var steps []step
	switch stored := k.stored != "" && k.stored != k.pending; {
	case k.pending != "" && !stored:
		steps = k.deleteUnstored()
	case k.has(k.pending): // the new key is stored, and the old one was to go
		why := k.stored + " has taken its place, and an earlier run could not delete it any more"
		return append(k.deactivate(k.pending, why), k.clearTag()), nil
	}
	switch {
	case len(k.all) == 0:
		return append(steps, k.renew(w, s, "")...), nil
	case w.RotateKey && len(k.all) == maxKeys:
		which := ""
		if k.stored != "" {
			which = ", of which " + k.stored + " is the one that is stored"
		}
		return nil, fmt.Errorf("user %s has two access keys, %s and %s%s, and IAM allows no third: find out who uses the "+
			"other, and delete it with "+
			"aws iam delete-access-key --user-name %s --access-key-id ID; then run this again",
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

// deleteUnstored deletes keys that a run has made which was broken off before it could store them.
func (k *keys) deleteUnstored() (steps []step) {
	var rest []awsadmin.Key
	for _, one := range k.all {
		if one.ID == k.pending || one.Used { // what has been used, somebody else has made
			rest = append(rest, one)
			continue
		}
		steps = append(steps, newStep(change.Delete, kindKey, one.ID,
			"an earlier run has made it and was broken off before it could store it: nobody has its secret",
			awsadmin.DeleteKey(k.user, one.ID)))
	}
	k.all = rest
	return steps
}

// renew makes a key and stores it before the old one goes, if there is one. The tag tells the next run of a key that
// this one could neither store nor take back.
func (k keys) renew(w Spec, s State, old string) []step {
	var made awsadmin.NewKey // from step to step; it is shown to nobody
	steps, stored := w.Store.steps(w, s, &made)
	of, replaces := "of "+k.user, cmp.Or(old, replacesNone)
	if k.pending != replaces {
		steps = append(steps, newStep(change.Tag, kindUser, k.user, tagKeyReplaces+"="+replaces+
			", while the key is made: a run that is broken off is finished by the next",
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
		last = append(k.deactivate(old, "the new one takes its place; whoever uses the old one must take the new one"), last...)
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

// store stores a key that was made. One that the store surely does not have is taken away again.
func (k keys) store(ctx context.Context, r *Onboarding, made awsadmin.NewKey) error {
	err := r.Spec.Store.Put(ctx, r.AWS, made)
	switch {
	case err == nil:
		r.Made = &made
		return nil
	case !errors.Is(err, ErrNotStored):
		return fmt.Errorf("whether %s has access key %s is not known: run this again: %w", r.Spec.Store, made.ID, err)
	}
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeBackLimit)
	defer cancel()
	return errors.Join(err, r.AWS.Do(back, awsadmin.DeleteKey(k.user, made.ID)))
}

func (k keys) deactivate(id, why string) []step {
	return []step{newStep(change.Deactivate, kindKey, id, why, awsadmin.DeactivateKey(k.user, id)),
		newStep(change.Delete, kindKey, id, "", awsadmin.DeleteKey(k.user, id))}
}

func (k keys) clearTag() step {
	return newStep(change.Untag, kindUser, k.user, tagKeyReplaces+": no key is being made any more",
		awsadmin.UntagUser(k.user, tagKeyReplaces))
}

// waitUntilAccepted waits until AWS accepts the key: before that, the old one must not go.
func waitUntilAccepted(ctx context.Context, aws *awsadmin.Account, k awsadmin.NewKey) error {
	var refused error
	if wait.PollUntilContextTimeout(ctx, knownPause, knownLimit, true, func(ctx context.Context) (bool, error) {
		refused = aws.KeyWorks(ctx, k)
		return refused == nil, nil
	}) != nil {
		return fmt.Errorf("access key %s is stored, and AWS does not accept it yet: run this again in a minute: %w",
			k.ID, refused)
	}
	return nil
}

// kept says what becomes of keys that stay.
func (k keys) kept(w Spec) (steps []step) {
	renew := "--rotate-key makes a new one, stores it, and then deletes this one"
	for _, one := range k.all {
		verb, why := leave, ""
		switch remove := "aws iam delete-access-key --user-name " + k.user + " --access-key-id "; {
		case one.ID == k.stored && !one.Active:
			why = "somebody has deactivated it: aws iam update-access-key --user-name " + k.user + " --access-key-id " + one.ID +
				" --status Active has it accepted again, and " + renew
		case one.ID == k.stored && k.where != "":
			why = "its secret is in " + k.where + " and not in " + w.Store.String() + ": " + renew
		case one.ID == k.stored:
			verb, why = keep, "its secret is in "+w.Store.String()
		case len(k.all) == maxKeys && k.stored != "":
			why = "it is not ours to delete: if nobody uses it, " + remove + one.ID
		case len(k.all) == maxKeys:
			why = "its secret is in no store that we know, and IAM allows no third key: find out which of the two nobody " +
				"uses, delete it with " +
				remove + "ID, and then run this with --rotate-key"
		default:
			why = "its secret is in no store that we know: if you have it, all is well; if not, " + renew
		}
		steps = append(steps, verb(kindKey, one.ID, why))
	}
	return steps
}
