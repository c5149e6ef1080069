package onboard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

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

func (i InSecretsManager) steps(_ Spec, s State, _ *awsadmin.NewKey) (before, after []step) {
	if s.KeySecret != nil {
		return nil, nil
	}
	return []step{newStep(change.Create, kindSecret, i.name(), "for the access key; still empty",
		awsadmin.CreateSecret(i.name(), "Access key of CAST AI for "+i.Cluster, iam.Tags(i.Cluster)))}, nil
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
