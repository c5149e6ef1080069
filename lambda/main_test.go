package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/app"
	"github.com/castai/kops-spot/internal/spot"
)

// TestWrongConfigurationIsToldForEachEvent, so that whoever invokes the function sees it.
func TestWrongConfigurationIsToldForEachEvent(t *testing.T) {
	logged := new(bytes.Buffer)
	handle := handler(t.Context(), []string{"KOPS_SPOT_MODE=no"}, logged)
	for range 2 {
		_, err := handle(t.Context(), nil)
		if _, ok := err.(app.ConfigurationError); !ok || !strings.Contains(err.Error(), "KOPS_SPOT_CLUSTER") { // Lambda does not unwrap it
			t.Errorf("got %T: %v", err, err)
		}
	}
	if !strings.Contains(logged.String(), "KOPS_SPOT_MODE") {
		t.Errorf("nothing of it stands in the log: %s", logged)
	}
}

// TestEventsWithoutARule are quiet successes, and bad ones errors, without a request to anybody.
func TestEventsWithoutARule(t *testing.T) {
	t.Setenv("AWS_REGION", "us-east-1")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("very-secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	logged := new(bytes.Buffer)
	handle := handler(t.Context(), []string{"KOPS_SPOT_CLUSTER=prod.example.com", "KOPS_SPOT_MODE=act", "KOPS_SPOT_LOGIN=file:" + token,
		"KOPS_SPOT_SERVER=https://127.0.0.1:1"}, logged)
	got, err := handle(t.Context(), json.RawMessage(`{"id":"e","source":"aws.ec2","detail-type":"EC2 AMI State Change"}`))
	if out, ok := got.(spot.Outcome); err != nil || !ok || out.Result != spot.Ignored || out.Event.DetailType != "EC2 AMI State Change" {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err = handle(t.Context(), json.RawMessage(`{}`))
	if _, ok := err.(app.EventError); !ok {
		t.Errorf("an event that is none: %T: %v", err, err)
	}
	if strings.Contains(logged.String(), "very-secret") {
		t.Error("the token stands in the log")
	}
}

func TestNoRegion(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("very-secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	logged := new(bytes.Buffer)
	handle := handler(t.Context(), []string{"KOPS_SPOT_CLUSTER=prod.example.com", "KOPS_SPOT_MODE=act", "KOPS_SPOT_LOGIN=file:" + token,
		"KOPS_SPOT_SERVER=https://127.0.0.1:1"}, logged)
	if _, err := handle(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("got %v", err)
	}
}
