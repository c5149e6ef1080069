package lambdalocal

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
)

// ServeHTTP answers AWS's Invoke API; signatures are not looked at.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.invokeAPI.ServeHTTP(w, r)
}

func (s *Service) newInvokeAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /2015-03-31/functions/{name}/invocations", s.serveInvoke)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, &Error{StatusCode: http.StatusNotFound, Code: "UnknownOperationException",
			Message: "only Invoke is served here: POST /2015-03-31/functions/NAME/invocations"})
	})
	return mux
}

func (s *Service) serveInvoke(w http.ResponseWriter, r *http.Request) {
	// One byte more than the larger limit is enough to tell that there is more.
	payload, err := io.ReadAll(io.LimitReader(r.Body, syncPayloadLimit+1))
	if err != nil {
		return // the caller is gone
	}
	result, err := s.invoke(r.Context(), request{
		name:      r.PathValue("name"),
		qualifier: r.URL.Query().Get("Qualifier"),
		typ:       InvocationType(r.Header.Get("X-Amz-Invocation-Type")),
		traceID:   r.Header.Get("X-Amzn-Trace-Id"),
		payload:   payload,
	})
	if err != nil {
		writeError(w, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Amzn-RequestId", result.RequestID)
	if result.StatusCode == http.StatusOK {
		h.Set("X-Amz-Executed-Version", result.ExecutedVersion)
		if result.FunctionError != "" {
			h.Set("X-Amz-Function-Error", result.FunctionError)
		}
		if r.Header.Get("X-Amz-Log-Type") == "Tail" {
			h.Set("X-Amz-Log-Result", base64.StdEncoding.EncodeToString(result.LogTail))
		}
	}
	w.WriteHeader(result.StatusCode)
	w.Write(result.Payload)
}

func writeError(w http.ResponseWriter, err error) {
	var refusal *Error
	if !errors.As(err, &refusal) {
		refusal = errService(err.Error())
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Amzn-RequestId", newRequestID())
	h.Set("X-Amzn-ErrorType", refusal.Code)
	w.WriteHeader(refusal.StatusCode)
	w.Write(refusal.body())
}
