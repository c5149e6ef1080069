package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/onboard"
)

func tagsOf(key, value string) []types.Tag {
	return []types.Tag{{Key: aws.String(key), Value: aws.String(value)}}
}

// keys are the ids of the access keys of A's user, the active ones first.
func (w *world) keys() (ids []string) {
	w.Helper()
	user := iam.UserName(cluster)
	for _, k := range must(w.iam().ListAccessKeys(w.Context(), &awsiam.ListAccessKeysInput{UserName: &user})).AccessKeyMetadata {
		ids = append(ids, *k.AccessKeyId)
	}
	slices.Sort(ids)
	return ids
}

func (w *world) makeKey() string {
	w.Helper()
	user := iam.UserName(cluster)
	return *must(w.iam().CreateAccessKey(w.Context(), &awsiam.CreateAccessKeyInput{UserName: &user})).AccessKey.AccessKeyId
}

func (w *world) forgetSecret() {
	w.Helper()
	try(awsadmin.New(w.direct).Do(w.Context(), awsadmin.DeleteSecret("cast-kops/"+cluster+"/access-key")))
}

func rotating(want *onboard.Spec) { want.RotateKey = true }

func TestAKeyWhoseSecretIsNowhereStaysUntilItIsRotated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	w.onboard(cluster, node, nil)
	w.forgetSecret()
	old := w.keys()
	r := w.run(cluster, node, nil)
	p := must(r.Plan(t.Context()))
	left := find(t, p.Changes, change.Leave, old[0])
	if !strings.Contains(left.Why, "--rotate-key") || !p.Changes.Empty() {
		t.Errorf("the plan is %+v", p.Changes)
	}
	w.onboard(cluster, node, rotating)
	if now := w.keys(); len(now) != 1 || now[0] == old[0] || w.stored(cluster).ID != now[0] {
		t.Errorf("after the rotation there are %q", now)
	}
}

func TestOfTwoKeysNoneIsDeletedUnasked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	w.onboard(cluster, node, nil)
	stored := w.keys()[0]
	other := w.makeKey()
	two := w.keys()
	w.Reset()
	r := w.onboard(cluster, node, nil)
	if wrote := w.Written(); len(wrote) > 0 || r.Made != nil {
		t.Errorf("it has written %q", wrote)
	}
	p := must(r.Plan(t.Context()))
	find(t, p.Changes, change.Keep, stored)
	if left := find(t, p.Changes, change.Leave, other); !strings.Contains(left.Why, "aws iam delete-access-key --user-name "+iam.UserName(cluster)+" --access-key-id "+other) {
		t.Errorf("it is not said what to do: %s", left.Why)
	}
	rotate := w.run(cluster, node, rotating)
	if _, err := rotate.Plan(t.Context()); err == nil || !strings.Contains(err.Error(), "IAM allows no third") || !strings.Contains(err.Error(), stored+" is the stored one") {
		t.Errorf("a rotation with two keys: %v", err)
	}
	w.forgetSecret()
	p = must(w.run(cluster, node, nil).Plan(t.Context()))
	if !p.Changes.Empty() || p.Changes.Count(change.Leave) != 2 {
		t.Errorf("of two keys whose secrets are nowhere, the plan is %+v", p.Changes)
	}
	if now := w.keys(); !slices.Equal(two, now) {
		t.Errorf("keys were %q and are %q", two, now)
	}
}

// TestARotationThatIsBrokenOffLosesNoKey breaks it off at each write: at each moment there is an active key whose secret is
// stored, and the next run comes to one key.
func TestARotationThatIsBrokenOffLosesNoKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	w.onboard(cluster, node, nil)
	w.Reset()
	w.onboard(cluster, node, rotating)
	writes := w.Written()
	stored, retired := slices.Index(writes, "secretsmanager:PutSecretValue"), slices.Index(writes, "iam:UpdateAccessKey")
	if made := slices.Index(writes, "iam:CreateAccessKey"); made < 0 || stored < made || retired < stored || writes[retired+1] != "iam:DeleteAccessKey" {
		t.Fatalf("a rotation writes %q", writes)
	}
	for n, action := range writes {
		w.Reset()
		w.CutOff(n + 1)
		r := w.run(cluster, node, rotating)
		if err := w.carryOut(r, r.Plan); err == nil {
			t.Fatalf("it was not broken off at %s", action)
		}
		w.Reset()
		all := strings.Join(w.snapshot(), "\n")
		if k := w.stored(cluster); !strings.Contains(all, "key "+k.ID+" Active") {
			t.Errorf("broken off at %s, the key that is stored is not one that works", action)
		}
		w.onboard(cluster, node, rotating)
		now := w.keys()
		if len(now) != 1 || w.stored(cluster).ID != now[0] {
			t.Errorf("broken off at %s and repeated, there are %q", action, now)
		}
		if p := must(w.run(cluster, node, nil).Plan(t.Context())); !p.Changes.Empty() {
			t.Errorf("broken off at %s and repeated, this is left: %+v", action, p.Changes)
		}
	}
}

func TestAKeyThatTheConsoleDoesNotTake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	var answer error
	var given awsadmin.NewKey
	console := func(want *onboard.Spec) {
		want.Store = onboard.InConsole{Give: func(_ context.Context, credentials []byte) error {
			return errors.Join(answer, json.Unmarshal(credentials, &given))
		}}
	}
	answer = fmt.Errorf("it answers 401: %w", onboard.ErrNotStored)
	r := w.run(cluster, node, console)
	if err := w.carryOut(r, r.Plan); !errors.Is(err, answer) {
		t.Fatalf("%v", err)
	}
	if left := w.keys(); len(left) > 0 || r.Made != nil {
		t.Errorf("a key is left that surely nobody has: %q", left)
	}

	answer = errors.New("no answer")
	r = w.run(cluster, node, console)
	if err := w.carryOut(r, r.Plan); !errors.Is(err, answer) || !strings.Contains(err.Error(), "may or may not have access key") {
		t.Fatalf("%v", err)
	}
	if left := w.keys(); !slices.Equal(left, []string{given.ID}) {
		t.Errorf("the console may have the key, and of %s there is left: %q", given, left)
	}
	answer = nil
	w.onboard(cluster, node, console)
	if now := w.keys(); !slices.Equal(now, []string{given.ID}) || given.Secret == "" {
		t.Errorf("the console was given %s, and there are %q", given, now)
	}
	w.Reset()
	w.onboard(cluster, node, console)
	if again := w.Written(); len(again) > 0 {
		t.Errorf("what the console has is made again: %q", again)
	}
}

// TestAKeyThatSomebodyHasUsedIsNotTakenForLost: the console has had it all the same.
func TestAKeyThatSomebodyHasUsedIsNotTakenForLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	var given awsadmin.NewKey
	console := func(want *onboard.Spec) {
		want.Store = onboard.InConsole{Give: func(_ context.Context, credentials []byte) error {
			return errors.Join(errors.New("no answer"), json.Unmarshal(credentials, &given))
		}}
	}
	r := w.run(cluster, node, console)
	if err := w.carryOut(r, r.Plan); err == nil {
		t.Fatal("it goes on")
	}
	if err := r.AWS.KeyWorks(t.Context(), given); err != nil { // it is used
		t.Fatal(err)
	}
	p := must(w.run(cluster, node, console).Plan(t.Context()))
	find(t, p.Changes, change.Leave, given.ID)
	if p.Changes.Count(change.Delete) > 0 || p.Changes.Count(change.Create) > 0 {
		t.Errorf("the plan is %+v", p.Changes)
	}
}

func TestAKeyInAFileIsItsOwnersAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	path := filepath.Join(t.TempDir(), "key.json")
	file := func(want *onboard.Spec) { want.Store = onboard.InFile{Path: path} }
	w.onboard(cluster, node, file)
	var k awsadmin.NewKey
	if err := json.Unmarshal(must(os.ReadFile(path)), &k); err != nil || !slices.Equal(w.keys(), []string{k.ID}) || k.Secret == "" {
		t.Errorf("the file holds the key %s: %v", k, err)
	}
	if mode := must(os.Stat(path)).Mode().Perm(); mode != 0o600 {
		t.Errorf("its mode is %o", mode)
	}
	w.Reset()
	w.onboard(cluster, node, file)
	if again := w.Written(); len(again) > 0 {
		t.Errorf("what the file holds is made again: %q", again)
	}
	try(os.WriteFile(path, []byte(`{"accessKeyId": "AKIAOFSOMEBODYELSE00"}`), 0o600))
	if _, err := w.run(cluster, node, file).Plan(t.Context()); err == nil || !strings.Contains(err.Error(), "not overwritten") {
		t.Errorf("another's key is overwritten: %v", err)
	}
}
