// A Lambda function that does what its event asks for. It speaks the Runtime API
// with nothing but net/http, so that it can be built without a module.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

type event struct {
	Do       string `json:"do"`
	MS       int    `json:"ms"`
	Size     int    `json:"size"`
	Path     string `json:"path"`
	Failures int    `json:"failures"`
	Text     string `json:"text"`
}

type runtime struct {
	api   string
	id    string
	count int
}

func main() {
	log.SetFlags(0)
	if len(os.Args) > 1 { // started by "spawn"
		time.Sleep(time.Minute)
		return
	}
	rt := &runtime{api: "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/"}
	rt.initialise(os.Getenv("INIT"))
	for {
		rt.serveOne()
	}
}

func (rt *runtime) initialise(how string) {
	fmt.Println("initialising", how)
	switch how {
	case "exit":
		os.Exit(7)
	case "exit-0":
		os.Exit(0)
	case "slow":
		time.Sleep(300 * time.Millisecond)
	case "hang":
		time.Sleep(time.Minute)
	case "error":
		rt.post("init/error", []byte(`{"errorType":"Config.Missing","errorMessage":"no cluster"}`), "Config.Missing")
		os.Exit(1)
	case "hang-once", "exit-once":
		if _, err := os.Stat(os.Getenv("MARKER")); err == nil {
			return
		}
		must(os.WriteFile(os.Getenv("MARKER"), nil, 0o600))
		if how == "hang-once" {
			time.Sleep(time.Minute)
		}
		os.Exit(7)
	}
}

func (rt *runtime) serveOne() {
	headers, payload := rt.next()
	rt.id = headers.Get("Lambda-Runtime-Aws-Request-Id")
	rt.count++
	var e event
	json.Unmarshal(payload, &e) // an event of another shape is echoed
	switch e.Do {
	case "error":
		rt.fail("Some.Error", "it did not work")
	case "panic":
		rt.fail("runtime.Panic", "oh no")
		log.Print("panic: oh no")
		os.Exit(1)
	case "exit":
		fmt.Print("no newline")
		os.Exit(3)
	case "exit-0":
		os.Exit(0)
	case "sleep":
		time.Sleep(time.Duration(e.MS) * time.Millisecond)
		rt.respond([]byte(`"slept"`))
	case "linger":
		rt.respond([]byte(`"answered"`))
		time.Sleep(time.Minute)
	case "environment":
		rt.respondJSON(os.Environ())
	case "headers":
		rt.respondJSON(headers)
	case "identify":
		folder, err := os.Getwd()
		must(err)
		rt.respondJSON(map[string]any{"pid": os.Getpid(), "count": rt.count, "folder": folder})
	case "print":
		fmt.Println("to stdout")
		log.Print("to stderr")
		fmt.Print(e.Text)
		rt.respond([]byte("null"))
	case "big":
		status, body := rt.post("invocation/"+rt.id+"/response", []byte(`"`+strings.Repeat("x", e.Size-2)+`"`), "")
		log.Printf("response: %d %s", status, body)
	case "text":
		rt.respond([]byte(e.Text))
	case "wrong-id":
		status, body := rt.post("invocation/another/response", []byte("null"), "")
		status2, body2 := rt.post("invocation/another/error", []byte("null"), "")
		rt.respondJSON([]any{status, body, status2, body2})
	case "twice":
		status, body := rt.get("invocation/next")
		status2, body2 := rt.post("init/error", []byte("null"), "")
		rt.respondJSON([]any{status, body, status2, body2})
	case "answer-twice":
		rt.respond([]byte(`"first"`))
		status, body := rt.post("invocation/"+rt.id+"/response", []byte(`"second"`), "")
		log.Printf("second: %d %s", status, body)
	case "spawn":
		child := exec.Command(os.Args[0], "child")
		must(child.Start())
		must(os.WriteFile(e.Path, fmt.Append(nil, child.Process.Pid), 0o600))
		time.Sleep(time.Duration(e.MS) * time.Millisecond)
		rt.respond([]byte("null"))
	case "background":
		go func() {
			for {
				appendTo(e.Path, ".")
				time.Sleep(2 * time.Millisecond)
			}
		}()
		rt.respond([]byte("null"))
	case "flaky": // fails the first times, and notes the request ids
		appendTo(e.Path, rt.id+"\n")
		tries, err := os.ReadFile(e.Path)
		must(err)
		if bytes.Count(tries, []byte("\n")) <= e.Failures {
			rt.fail("Some.Error", "not yet")
			return
		}
		rt.respond([]byte(`"at last"`))
	default:
		rt.respond(payload)
	}
}

func (rt *runtime) next() (http.Header, []byte) {
	resp, err := http.Get(rt.api + "invocation/next")
	must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(err)
	if resp.StatusCode != http.StatusOK {
		log.Fatalf("next: %s", resp.Status)
	}
	return resp.Header, body
}

func (rt *runtime) respond(payload []byte) {
	if status, body := rt.post("invocation/"+rt.id+"/response", payload, ""); status != http.StatusAccepted || body != `{"status":"OK"}` {
		log.Fatalf("response: %d %s", status, body)
	}
}

func (rt *runtime) respondJSON(v any) {
	payload, err := json.Marshal(v)
	must(err)
	rt.respond(payload)
}

func (rt *runtime) fail(errorType, message string) {
	payload, err := json.Marshal(map[string]string{"errorType": errorType, "errorMessage": message})
	must(err)
	if status, body := rt.post("invocation/"+rt.id+"/error", payload, errorType); status != http.StatusAccepted {
		log.Fatalf("error: %d %s", status, body)
	}
}

func (rt *runtime) post(path string, payload []byte, errorType string) (int, string) {
	req, err := http.NewRequest(http.MethodPost, rt.api+path, bytes.NewReader(payload))
	must(err)
	req.Header.Set("Content-Type", "application/json")
	if errorType != "" {
		req.Header.Set("Lambda-Runtime-Function-Error-Type", errorType)
	}
	return rt.read(http.DefaultClient.Do(req))
}

func (rt *runtime) get(path string) (int, string) {
	return rt.read(http.Get(rt.api + path))
}

func (rt *runtime) read(resp *http.Response, err error) (int, string) {
	must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(err)
	return resp.StatusCode, string(body)
}

func appendTo(path, text string) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	must(err)
	defer f.Close()
	_, err = f.WriteString(text)
	must(err)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
