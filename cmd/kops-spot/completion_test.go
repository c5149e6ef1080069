package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCompleteNode completes the nodes of the cluster.
func TestCompleteNode(t *testing.T) {
	for args, want := range map[string]string{
		"restore":                           "n\n:4\n",
		"rehearse --event spot-stop":        "n\n:4\n",
		"explain":                           "n\n:4\n",
		"explain i-":                        "i-0a1b2c3d\n:4\n",
		"explain --namespace shop":          ":4\n",
		"explain --context another":         ":4\n",
		"explain n":                         ":4\n",
		"status":                            ":4\n",
		"explain --cluster not-a-kops-name": ":4\n",
	} {
		t.Run(args, func(t *testing.T) {
			fields := strings.Fields("__complete --cluster prod.example.com " + args)
			fields[1], fields[2], fields[3] = fields[3], fields[1], fields[2] // the command comes first
			if !strings.HasSuffix(args, "i-") {
				fields = append(fields, "")
			}
			if got, _, err := newStub("e1").run(t, fields...); got != want || err != nil {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		})
	}
}

// TestCompleteNodeWaits checks that a credential plugin that waits for a person does not block the shell.
func TestCompleteNodeWaits(t *testing.T) {
	dir := t.TempDir()
	fifo, kubeconfig := filepath.Join(dir, "fifo"), filepath.Join(dir, "kubeconfig")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	text := `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}],
users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: cat, args: ["` + fifo + `"]}}}]}`
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err := run(t.Context(), []string{"KUBECONFIG=" + kubeconfig}, []string{"__complete", "restore", ""}, strings.NewReader(""), &out, io.Discard)
	if out.String() != ":4\n" || err != nil {
		t.Errorf("got %q, %v", out.String(), err)
	}
	for range 200 { // until the plugin reads
		if f, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			f.Close() // ends it
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("the plugin was not started")
}
