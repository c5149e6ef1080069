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

// keys returns the IDs of the access keys of A's user, the active ones first.
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

func TestUnstoredKeyStaysUntilRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	w.onboard(cluster, node, nil)
	w.forgetSecret()
	old := w.keys()
	r := w.run(cluster, node, nil)
	p := must(r.Plan(t.Context()))
	left := find(t, p.Changes, change.Review, old[0])
	if !strings.Contains(left.Why, "--rotate-key") || !p.Changes.Empty() {
		t.Errorf("plan: %+v", p.Changes)
	}
	w.onboard(cluster, node, rotating)
	if now := w.keys(); len(now) != 1 || now[0] == old[0] || w.stored(cluster).ID != now[0] {
		t.Errorf("keys after the rotation: %q", now)
	}
}

func TestTwoUnstoredKeys(t *testing.T) {
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
		t.Errorf("wrote %q", wrote)
	}
	p := must(r.Plan(t.Context()))
	find(t, p.Changes, change.Keep, stored)
	if left := find(t, p.Changes, change.Review, other); !strings.Contains(left.Why, "aws iam delete-access-key --user-name "+iam.UserName(cluster)+" --access-key-id "+other) {
		t.Errorf("no advice: %s", left.Why)
	}
	rotate := w.run(cluster, node, rotating)
	if _, err := rotate.Plan(t.Context()); err == nil || !strings.Contains(err.Error(), "IAM allows no third") || !strings.Contains(err.Error(), stored+" is the stored one") {
		t.Errorf("a rotation with two keys: %v", err)
	}
	w.forgetSecret()
	p = must(w.run(cluster, node, nil).Plan(t.Context()))
	if !p.Changes.Empty() || p.Changes.Count(change.Review) != 2 {
		t.Errorf("plan for two unstored keys: %+v", p.Changes)
	}
	if now := w.keys(); !slices.Equal(two, now) {
		t.Errorf("keys changed from %q to %q", two, now)
	}
}

// TestInterruptedRotation interrupts a rotation at each write: a stored key always works, and the next run ends with
// one key.
func TestInterruptedRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	w.onboard(cluster, node, nil)
	w.Reset()
	w.onboard(cluster, node, rotating)
	writes := w.Written()
	stored, retired := slices.Index(writes, "secretsmanager:PutSecretValue"), slices.Index(writes, "iam:UpdateAccessKey")
	if made := slices.Index(writes, "iam:CreateAccessKey"); made < 0 || stored < made || retired < stored || writes[retired+1] != "iam:DeleteAccessKey" {
		t.Fatalf("a rotation wrote %q", writes)
	}
	for n, action := range writes {
		w.Reset()
		w.CutOff(n + 1)
		r := w.run(cluster, node, rotating)
		if err := w.applyPlan(r, r.Plan); err == nil {
			t.Fatalf("not interrupted at %s", action)
		}
		w.Reset()
		all := strings.Join(w.snapshot(), "\n")
		if k := w.stored(cluster); !strings.Contains(all, "key "+k.ID+" Active") {
			t.Errorf("interrupted at %s, the stored key does not work", action)
		}
		w.onboard(cluster, node, rotating)
		now := w.keys()
		if len(now) != 1 || w.stored(cluster).ID != now[0] {
			t.Errorf("interrupted at %s and repeated: keys %q", action, now)
		}
		if p := must(w.run(cluster, node, nil).Plan(t.Context())); !p.Changes.Empty() {
			t.Errorf("interrupted at %s and repeated: remaining rows %+v", action, p.Changes)
		}
	}
}

func TestConsoleRejectsKey(t *testing.T) {
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
	answer = fmt.Errorf("401: %w", onboard.ErrNotStored)
	r := w.run(cluster, node, console)
	if err := w.applyPlan(r, r.Plan); !errors.Is(err, answer) {
		t.Fatalf("%v", err)
	}
	if left := w.keys(); len(left) > 0 || r.Made != nil {
		t.Errorf("the rejected key still exists: %q", left)
	}

	answer = errors.New("no answer")
	r = w.run(cluster, node, console)
	if err := w.applyPlan(r, r.Plan); !errors.Is(err, answer) || !strings.Contains(err.Error(), "may or may not have access key") {
		t.Fatalf("%v", err)
	}
	if left := w.keys(); !slices.Equal(left, []string{given.ID}) {
		t.Errorf("the console may have the key %s, but the user has %q", given, left)
	}
	answer = nil
	w.onboard(cluster, node, console)
	if now := w.keys(); !slices.Equal(now, []string{given.ID}) || given.Secret == "" {
		t.Errorf("the console has %s, the user has %q", given, now)
	}
	w.Reset()
	w.onboard(cluster, node, console)
	if again := w.Written(); len(again) > 0 {
		t.Errorf("another key was created: %q", again)
	}
}

// TestUsedKeyIsKept: a used key must have reached the console.
func TestUsedKeyIsKept(t *testing.T) {
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
	if err := w.applyPlan(r, r.Plan); err == nil {
		t.Fatal("the rotation succeeded")
	}
	if err := r.AWS.KeyWorks(t.Context(), given); err != nil { // it is used
		t.Fatal(err)
	}
	p := must(w.run(cluster, node, console).Plan(t.Context()))
	find(t, p.Changes, change.Review, given.ID)
	if p.Changes.Count(change.Delete) > 0 || p.Changes.Count(change.Create) > 0 {
		t.Errorf("plan: %+v", p.Changes)
	}
}

func TestKeyInFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(cluster)
	path := filepath.Join(t.TempDir(), "key.json")
	file := func(want *onboard.Spec) { want.Store = onboard.InFile{Path: path} }
	w.onboard(cluster, node, file)
	var k awsadmin.NewKey
	if err := json.Unmarshal(must(os.ReadFile(path)), &k); err != nil || !slices.Equal(w.keys(), []string{k.ID}) || k.Secret == "" {
		t.Errorf("key in the file: %s: %v", k, err)
	}
	if mode := must(os.Stat(path)).Mode().Perm(); mode != 0o600 {
		t.Errorf("mode %o", mode)
	}
	w.Reset()
	w.onboard(cluster, node, file)
	if again := w.Written(); len(again) > 0 {
		t.Errorf("another key was created: %q", again)
	}
	try(os.WriteFile(path, []byte(`{"accessKeyId": "AKIAOFSOMEBODYELSE00"}`), 0o600))
	if _, err := w.run(cluster, node, file).Plan(t.Context()); err == nil || !strings.Contains(err.Error(), "not overwritten") {
		t.Errorf("another user's key was overwritten: %v", err)
	}
}
