package onboard

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
	for i, store := range []KeyStore{w.Store, InSecretsManager{w.Environment.Cluster}, InConsole{}} {
		held, err := store.Holds(s)
		_, inFile := store.(InFile)
		switch {
		case err != nil:
			return k, err
		case k.has(held):
			if k.stored = held; i > 0 {
				k.where = store.String()
			}
			return k, nil
		case inFile && held != "":
			return k, fmt.Errorf("%s has the access key %s, which is not one of user %s: it is not overwritten: "+
				"delete it, or choose another file", store, held, iam.UserName(w.Environment.Cluster))
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
			"other, delete it with %s, and run this again", k.user, k.all[0].ID, k.all[1].ID, which, k.delete("ID"))
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
		verb, why := change.Review, ""
		switch {
		case one.ID == k.stored && !one.Active:
			verb, why = change.Leave, "it is inactive: reactivate it with "+awsCLI("iam", "update-access-key",
				"--user-name", k.user, "--access-key-id", one.ID, "--status", "Active")+", or "+renew
		case one.ID == k.stored && k.where != "":
			verb, why = change.Leave, "its secret is in "+k.where+" and not in "+w.Store.String()+": "+renew
		case one.ID == k.stored:
			verb, why = change.Keep, "its secret is in "+w.Store.String()
		case len(k.all) == maxKeys && k.stored != "":
			why = "it is not ours: if nobody uses it, delete it with " + k.delete(one.ID)
		case len(k.all) == maxKeys:
			why = "its secret is in no known store, and IAM allows no third key: delete an unused one with " +
				k.delete("ID") + ", and run this with --rotate-key"
		default:
			why = "its secret is in no known store: keep it if you have the secret; otherwise " + renew
		}
		steps = append(steps, step{Change: change.Change{Verb: verb, Kind: kindKey, Name: one.ID, Why: why}})
	}
	return steps
}

// delete is the command that deletes a key.
func (k keys) delete(id string) string {
	return awsCLI("iam", "delete-access-key", "--user-name", k.user, "--access-key-id", id)
}

// KeyStore stores the access key, and knows the ID of the stored key without reading its secret.
type KeyStore interface {
	String() string

	// Holds returns the ID of the stored key; empty for none.
	Holds(s State) (string, error)

	// Ready checks that the store accepts a key, before one is created.
	Ready() error

	// Put stores a key. After any error but ErrNotStored, the store may or may not have it.
	Put(ctx context.Context, aws *awsadmin.Account, k awsadmin.NewKey) error

	// steps are the store's own rows: before a key is created, and after it is stored.
	steps(w Spec, s State, made *awsadmin.NewKey) (before, after []step)
}

// ErrNotStored means that a store certainly does not have the key.
var ErrNotStored = errors.New("the key is not stored")

// InSecretsManager stores the key in a secret of the account.
type InSecretsManager struct{ Cluster string }

func (i InSecretsManager) name() string   { return iam.SecretName(i.Cluster, secretAccessKey) }
func (i InSecretsManager) String() string { return "the secret " + i.name() + " of Secrets Manager" }

func (i InSecretsManager) Holds(s State) (string, error) {
	if s.KeySecret == nil {
		return "", nil
	}
	return s.KeySecret.Label, nil
}

func (InSecretsManager) Ready() error { return nil }

func (i InSecretsManager) steps(w Spec, s State, _ *awsadmin.NewKey) (before, after []step) {
	if s.KeySecret != nil {
		return nil, nil
	}
	return []step{newStep(change.Create, kindSecret, i.name(), "for the access key; still empty",
		awsadmin.CreateSecret(i.name(), "Access key of CAST AI for "+i.Cluster, w.tags(iam.Tags(i.Cluster))))}, nil
}

func (i InSecretsManager) Put(ctx context.Context, aws *awsadmin.Account, k awsadmin.NewKey) error {
	err := aws.Store(ctx, i.name(), string(k.JSON()), k.ID)
	if err == nil {
		return nil
	}
	switch now, unknown := aws.Secret(ctx, i.name()); {
	case unknown != nil:
		return err
	case now != nil && now.Label == k.ID: // the response was lost
		return nil
	}
	return fmt.Errorf("%w: %w", ErrNotStored, err)
}

// InFile stores the key in a file that only its owner can read.
type InFile struct{ Path string }

func (f InFile) String() string { return "the file " + f.Path }

func (f InFile) Holds(State) (string, error) {
	text, err := os.ReadFile(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the credentials file: %w", err)
	}
	var k awsadmin.NewKey
	if json.Unmarshal(text, &k) != nil || k.ID == "" {
		return "", fmt.Errorf("the credentials file %s has no access key: it is not overwritten: choose another", f.Path)
	}
	return k.ID, nil
}

// Ready creates and removes an empty file beside it, to detect a full disk or a missing directory.
func (f InFile) Ready() error {
	probe, err := os.CreateTemp(filepath.Dir(f.Path), ".kops-spot-*")
	if err != nil {
		return fmt.Errorf("preparing the credentials file: %w", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

func (InFile) steps(Spec, State, *awsadmin.NewKey) (before, after []step) { return nil, nil }

// Put writes a new file and renames it: nobody sees half a key, or a file that others can read.
func (f InFile) Put(_ context.Context, _ *awsadmin.Account, k awsadmin.NewKey) error {
	next, err := os.CreateTemp(filepath.Dir(f.Path), ".kops-spot-*") // its mode is 0600
	if err == nil {
		defer os.Remove(next.Name())
		_, err = next.Write(append(k.JSON(), '\n'))
		err = errors.Join(err, next.Sync(), next.Close())
	}
	if err == nil {
		err = os.Rename(next.Name(), f.Path)
	}
	if err != nil {
		return fmt.Errorf("writing the credentials file %s: %w: %w", f.Path, ErrNotStored, err)
	}
	return nil
}

// InConsole stores the key in CAST AI's console, which does not return it. A tag of the user has its ID.
type InConsole struct {
	// Give sends the credentials; its errors are those of Put.
	Give func(ctx context.Context, credentials []byte) error
}

func (InConsole) String() string { return "CAST AI's console" }

func (InConsole) Holds(s State) (string, error) {
	if s.User == nil {
		return "", nil
	}
	return s.User.Tags[tagInConsole], nil
}

func (InConsole) Ready() error { return nil }

func (c InConsole) Put(ctx context.Context, _ *awsadmin.Account, k awsadmin.NewKey) error {
	return c.Give(ctx, k.JSON())
}

func (InConsole) steps(w Spec, _ State, made *awsadmin.NewKey) (before, after []step) {
	user := iam.UserName(w.Environment.Cluster)
	one := change.Change{Verb: change.Tag, Kind: kindUser, Name: user, Why: tagInConsole + ": the key in the console"}
	return nil, []step{{Change: one, Write: func(ctx context.Context, r *Onboarding) error {
		return r.AWS.Do(ctx, awsadmin.TagUser(user, map[string]string{tagInConsole: made.ID}))
	}}}
}
