package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMakeLocal: the real function answers on the path of sam local start-lambda, under its name in template.yaml, with the
// settings of the file. Nothing else is there to be reached, and it says so.
func TestMakeLocal(t *testing.T) {
	t.Parallel()
	file := variablesFile(t, `{"SpotHandlerFunction": {"KOPS_SPOT_CLUSTER": "test.example.com", "KOPS_SPOT_MODE": "observe", "KOPS_SPOT_LOGIN": "iam",
		"KOPS_SPOT_SERVER": "https://127.0.0.1:1", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1"}}`)
	event, err := os.Open("../../../events/self-check.json")
	if err != nil {
		t.Fatal(err)
	}
	defer event.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()

	made := exec.Command("make", "-C", "../../..", "local", "EVENTS_ENV="+file, "PORT="+addr[strings.LastIndexByte(addr, ':')+1:])
	made.Env = append(os.Environ(), "AWS_REGION=eu-west-1", "AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=key")
	made.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	made.Stderr = io.Discard
	out, err := made.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-made.Process.Pid, syscall.SIGTERM)
		_ = made.Wait()
	})
	served := "serving SpotHandlerFunction on http://" + addr
	for lines := bufio.NewScanner(out); ; {
		if !lines.Scan() {
			t.Fatalf("make local does not say %q", served)
		}
		if lines.Text() == served {
			break
		}
	}

	client := http.Client{Timeout: 40 * time.Second}
	res, err := client.Post("http://"+addr+"/2015-03-31/functions/SpotHandlerFunction/invocations", "application/json", event)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	for _, want := range []string{`"result":"not-ready"`, `"cluster":"test.example.com"`, "127.0.0.1:1"} {
		if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(said), want) {
			t.Errorf("%s %v: %s does not say %s", res.Status, err, said, want)
		}
	}
}
