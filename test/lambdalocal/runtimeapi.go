package lambdalocal

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// responseLimit is 6 MB and 100 bytes, the number in Lambda's own message.
const responseLimit = 6<<20 + 100

// runtimeAPI serves "Using the Lambda runtime API for custom runtimes"
// (Developer Guide), version 2018-06-01.
func (e *environment) runtimeAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", e.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", e.response)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error", e.invocationError)
	mux.HandleFunc("POST /2018-06-01/runtime/init/error", e.initError)
	return mux
}

func (e *environment) next(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	busy := e.current != nil
	e.started = true
	e.mu.Unlock()
	if busy {
		refuse(w, http.StatusForbidden, "InvalidStateTransition", "the current invocation has no response yet")
		return
	}
	select {
	case e.asked <- struct{}{}:
	default:
	}
	select {
	case inv := <-e.work:
		e.mu.Lock()
		e.current = inv
		e.mu.Unlock()
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Lambda-Runtime-Aws-Request-Id", inv.id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(inv.deadline.UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", inv.arn)
		h.Set("Lambda-Runtime-Trace-Id", inv.traceID)
		w.Write(inv.payload)
	case <-r.Context().Done():
	}
}

func (e *environment) response(w http.ResponseWriter, r *http.Request) {
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	inv := e.take(r.PathValue("id"))
	if inv == nil {
		refuse(w, http.StatusBadRequest, "InvalidRequestID", "Invalid request ID")
		return
	}
	if len(body) > responseLimit {
		inv.answered <- answer{errorType: "Function.ResponseSizeTooLarge", payload: mustJSON(map[string]string{
			"errorType":    "Function.ResponseSizeTooLarge",
			"errorMessage": fmt.Sprintf("Response payload size exceeded maximum allowed payload size (%d bytes).", responseLimit),
		})}
		refuse(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge",
			fmt.Sprintf("Exceeded maximum allowed payload size (%d bytes).", responseLimit))
		return
	}
	inv.answered <- answer{payload: body}
	accept(w)
}

func (e *environment) invocationError(w http.ResponseWriter, r *http.Request) {
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	inv := e.take(r.PathValue("id"))
	if inv == nil {
		refuse(w, http.StatusBadRequest, "InvalidRequestID", "Invalid request ID")
		return
	}
	inv.answered <- answer{payload: body, errorType: errorTypeOf(r)}
	accept(w)
}

func (e *environment) initError(w http.ResponseWriter, r *http.Request) {
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	e.mu.Lock()
	started := e.started
	e.mu.Unlock()
	if started {
		refuse(w, http.StatusForbidden, "InvalidStateTransition", "init is over")
		return
	}
	// Before the answer, which is what the runtime exits on.
	select {
	case e.initFailed <- answer{payload: body, errorType: errorTypeOf(r)}:
	default:
	}
	accept(w)
}

// take ends the invocation with that id, if it is the current one.
func (e *environment) take(id string) *invocation {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.current == nil || e.current.id != id {
		return nil
	}
	inv := e.current
	e.current = nil
	return inv
}

// errorTypeOf is the name of the error for Lambda's own log lines; a runtime may
// leave it out.
func errorTypeOf(r *http.Request) string {
	return cmp.Or(r.Header.Get("Lambda-Runtime-Function-Error-Type"), "Runtime.Unknown")
}

// readBody reads one byte more than a response may have, which is enough to
// tell that there is more.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	body, err := io.ReadAll(io.LimitReader(r.Body, responseLimit+1))
	if err != nil {
		refuse(w, http.StatusBadRequest, "TruncatedHTTPRequest", "HTTP request detected as truncated")
		return nil, false
	}
	return body, true
}

func accept(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	w.Write(mustJSON(map[string]string{"status": "OK"}))
}

func refuse(w http.ResponseWriter, status int, errorType, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(mustJSON(map[string]string{"errorType": errorType, "errorMessage": message}))
}
