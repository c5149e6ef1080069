package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spottest"
	fakeaws "github.com/castai/kops-spot/test/fakes/aws"
)

const root = "../../.."

// local is `make local` with a file of variables.
type local struct {
	*testing.T
	*exec.Cmd
	printed string // file
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "env.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func start(t *testing.T, variables string) *local {
	t.Helper()
	printed := filepath.Join(t.TempDir(), "printed")
	output, err := os.Create(printed)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	command := exec.Command("make", "-C", root, "local", "EVENTS_ENV="+write(t, variables), "PORT=0")
	l := &local{t, command, printed}
	l.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=key", "KOPS_SPOT_OF_THE_SHELL=1")
	l.Stdout, l.Stderr = output, output
	l.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C signals the process group
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *local) said() string {
	text, err := os.ReadFile(l.printed)
	if err != nil {
		l.Fatal(err)
	}
	return string(text)
}

func (l *local) await(what string, met func() bool) {
	l.Helper()
	for end := time.Now().Add(3 * time.Minute); !met(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			l.Fatalf("timed out waiting for %s: %s", what, l.said())
		}
	}
}

// invoke sends a sample like `aws lambda invoke --function-name function`.
func (l *local) invoke(sample string) (string, error) {
	event, err := os.Open(filepath.Join(root, "events", sample))
	if err != nil {
		return "", err
	}
	_, said, _ := strings.Cut(l.said(), "serving the function on ")
	url, _, _ := strings.Cut(said, "\n")
	res, err := http.Post(url+"/2015-03-31/functions/function/invocations", "application/json", event)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return fmt.Sprint(res.StatusCode, " ", string(answer)), err
}

// processes counts the processes with the text in their environment.
func (l *local) processes(text string) (n int) {
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		l.Fatal(err)
	}
	for _, environ := range all {
		if is, err := os.ReadFile(environ); err == nil && bytes.Contains(is, []byte(text)) {
			n++
		}
	}
	return n
}

// end sends a Ctrl-C.
func (l *local) end(cluster string) {
	l.Helper()
	if n := l.processes(cluster); n != 2 {
		l.Errorf("%d processes with the settings of the file, want the emulator's and the function's", n)
	}
	if err := syscall.Kill(-l.Process.Pid, syscall.SIGINT); err != nil {
		l.Error(err)
	}
	_ = l.Wait()
	l.await("no process is left", func() bool { return l.processes(cluster) == 0 })
}

// variables are the settings of a function that can reach only AWS, with a unique cluster name.
func variables(mode, aws string) (file, cluster string) {
	cluster = fmt.Sprintf("%s-%d.example.com", mode, os.Getpid())
	return fmt.Sprintf(`{"SpotHandlerFunction": {"KOPS_SPOT_CLUSTER": %q, "KOPS_SPOT_MODE": %q, "KOPS_SPOT_LOGIN": "iam",
		"KOPS_SPOT_SERVER": "https://127.0.0.1:1", "AWS_ENDPOINT_URL": %q}}`, cluster, mode, aws), cluster
}

// TestSamples: the function that sam build builds handles every sample in AWS's emulator, and a Ctrl-C during an
// invocation leaves no process behind. The instance and the group of the samples belong to another cluster.
func TestSamples(t *testing.T) {
	aws := spottest.NewAWS("eu-west-1")
	aws.AddInstance(spottest.Instance{ID: "i-0123456789abcdef0", Tags: map[string]string{"KubernetesCluster": "other.example.com"}})
	fake, err := fakeaws.Start(aws, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	url := strings.TrimPrefix(fake.Env()[0], "AWS_ENDPOINT_URL=")
	file, cluster := variables("observe", url)
	l := start(t, file)
	var said string
	l.await("the emulator serves", func() bool { said, err = l.invoke("self-check.json"); return err == nil })
	results := map[string]string{"self-check.json": "not-ready", "spot-interruption.json": "other-cluster",
		"rehearsal.json": "other-cluster", "state-change.json": "other-cluster", "launch-failed.json": "ignored"}
	samples, err := filepath.Glob(filepath.Join(root, "events", "*.json"))
	if err != nil || len(samples) != len(results)+1 { // and env.json
		t.Errorf("the samples are %q, %v", samples, err)
	}
	for name, result := range results {
		said, err := l.invoke(name)
		if err != nil || !strings.HasPrefix(said, `200 {"version":1,"result":"`+result+`"`) ||
			!strings.Contains(said, `"cluster":"`+cluster) {
			t.Errorf("%s returns %s, %v; want %s", name, said, err, result)
		}
	}
	before := strings.Count(l.said(), "START RequestId")
	aws.Delay("DescribeInstances", time.Minute)
	go l.invoke("spot-interruption.json")
	l.await("the next event has come", func() bool { return strings.Count(l.said(), "START RequestId") > before })
	l.end(cluster)

	file, cluster = variables("watch", url)
	l = start(t, file)
	l.await("the emulator serves", func() bool { said, err = l.invoke("spot-interruption.json"); return err == nil })
	// Lambda would report the function's failure in a header.
	if !strings.HasPrefix(said, `200 {"errorMessage":"reading the configuration: KOPS_SPOT_MODE`) {
		t.Errorf("a function with a wrong setting returns %s", said)
	}
	l.end(cluster)
}

func TestRefused(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	used, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	_, port, _ := net.SplitHostPort(used.Addr().String())
	good, _ := variables("observe", "http://127.0.0.1:1")
	const secret, form = "s3cret", `in the form {"SpotHandlerFunction": {"NAME": "value"}}`
	for what, c := range map[string]struct{ file, want string }{
		"port in use":      {write(t, good), ":" + port + ": bind: address already in use: set PORT to a free one"},
		"no file":          {"/nonexistent", "open /nonexistent: no such file or directory: name a file like"},
		"no JSON":          {write(t, "KEY="+secret), form},
		"no functions":     {write(t, `{"KEY": "`+secret+`"}`), form},
		"another function": {write(t, `{"Fn": {"KEY": "`+secret+`"}}`), form},
		"a number":         {write(t, `{"SpotHandlerFunction": {"KEY": 60}}`), form},
		"no credentials":   {write(t, `{"SpotHandlerFunction": {"AWS_ACCESS_KEY_ID": ""}}`), "run eval"},
	} {
		err := run(c.file, port)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
