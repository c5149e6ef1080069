package aws_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	kopsaws "github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	fakeaws "github.com/castai/kops-spot/test/fakes/aws"
)

var notification = spot.Outcome{Result: spot.Missed, Cluster: cluster,
	Event: spot.EventInfo{ID: "e1", Kind: spot.SpotTerminate, Instance: "i-1"},
	Pods:  []spot.PodResult{{Name: "web-1", Status: spot.PodEvicted}}}.Finished()

func TestPublish(t *testing.T) {
	fake, err := fakeaws.Start(spottest.NewAWS(region), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	cfg := environment(t, fake)
	if err := kopsaws.New(cfg).Publish(t.Context(), notification); err != nil {
		t.Fatal(err)
	}
	got := fake.Events()
	if len(got) != 1 || got[0].Source != "kops-spot" || got[0].DetailType != "Node Interruption Finished" {
		t.Fatalf("got %+v", got)
	}
	var n spot.Notification
	if err := json.Unmarshal(got[0].Detail, &n); err != nil {
		t.Fatal(err)
	}
	if n.Name = notification.Name; !reflect.DeepEqual(n, notification) {
		t.Errorf("got %+v, want %+v", n, notification)
	}
	fake.Close()
	if err := kopsaws.New(cfg).Publish(t.Context(), notification); err == nil || errors.Is(err, spot.ErrPermanent) {
		t.Errorf("without a server: got %v, want an error that may go away", err)
	}
}
