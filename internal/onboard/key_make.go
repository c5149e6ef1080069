package onboard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/castai/kops-spot/internal/iamcloud"
)

func (work keyWork) do(ctx context.Context, r *Run) error {
	for _, id := range work.orphans {
		if err := r.AWS.Do(ctx, iamcloud.DeleteKey(work.user, id)); err != nil {
			return err
		}
	}
	if work.make {
		if err := work.renew(ctx, r); err != nil {
			return err
		}
	}
	if work.retire != "" {
		for _, c := range []iamcloud.Call{iamcloud.DeactivateKey(work.user, work.retire), iamcloud.DeleteKey(work.user, work.retire)} {
			if err := r.AWS.Do(ctx, c); err != nil {
				return err
			}
		}
	}
	return r.AWS.Do(ctx, iamcloud.UntagUser(work.user, tagRenewing))
}

// renew makes a key and stores it. One that the store surely does not have is taken away again. Where that is not known, or
// fails too, the user's tag tells the next run.
func (work keyWork) renew(ctx context.Context, r *Run) error {
	if err := r.Want.Store.Ready(ctx, r); err != nil {
		return err
	}
	replaces := replacesNone
	if work.retire != "" {
		replaces = work.retire
	}
	if err := r.AWS.Do(ctx, iamcloud.TagUser(work.user, map[string]string{tagRenewing: replaces})); err != nil {
		return err
	}
	made, err := r.AWS.CreateKey(ctx, work.user)
	if err != nil {
		return err
	}
	if err := r.Want.Store.Put(ctx, r, made); err != nil {
		if !errors.Is(err, ErrNotStored) {
			return fmt.Errorf("whether %s has access key %s is not known: run this again: %w", r.Want.Store, made.ID, err)
		}
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeBackLimit)
		defer cancel()
		return errors.Join(err, r.AWS.Do(back, iamcloud.DeleteKey(work.user, made.ID)))
	}
	r.Made = &made
	return untilKnown(ctx, r.AWS, made)
}

const (
	takeBackLimit = 10 * time.Second

	// IAM says that a new key may take seconds until it is accepted everywhere.
	knownLimit = time.Minute
	knownPause = time.Second
)

// untilKnown waits until AWS accepts the key: before that, the old one must not go.
func untilKnown(ctx context.Context, aws *iamcloud.Account, k iamcloud.NewKey) error {
	ctx, cancel := context.WithTimeout(ctx, knownLimit)
	defer cancel()
	for {
		err := aws.KeyWorks(ctx, k)
		if err == nil {
			return nil
		}
		if paused := pause(ctx, knownPause); paused != nil {
			return fmt.Errorf("access key %s is stored, and AWS does not accept it yet: run this again in a minute: %w", k.ID, err)
		}
	}
}
