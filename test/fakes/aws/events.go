package aws

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// Event is an event on the account's default bus.
type Event struct {
	Source, DetailType string
	Detail             json.RawMessage
	Received           time.Time
}

// Events returns the events so far, in order.
func (s *Server) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// putEvents accepts events as EventBridge does, but has no rules.
func (s *Server) putEvents(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Entries []struct{ Source, DetailType, Detail string }
	}
	err := json.NewDecoder(r.Body).Decode(&in)
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"__type": "SerializationException", "message": %q}`, err)
		return
	}
	var out struct {
		FailedEntryCount int
		Entries          []map[string]string
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range in.Entries {
		if !json.Valid([]byte(e.Detail)) {
			out.FailedEntryCount++
			out.Entries = append(out.Entries, map[string]string{"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed."})
			continue
		}
		s.events = append(s.events, Event{e.Source, e.DetailType, json.RawMessage(e.Detail), time.Now()})
		out.Entries = append(out.Entries, map[string]string{"EventId": fmt.Sprintf("event-%d", len(s.events))})
	}
	json.NewEncoder(w).Encode(out)
}
