package bridge

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"
)

// entriesLimit is how many events PutEvents takes at once.
const entriesLimit = 10

// entry is a PutEventsRequestEntry. Its TraceHeader is not looked at.
type entry struct {
	Time         *float64 // seconds since 1970
	Source       string
	Resources    []string
	DetailType   string
	Detail       string
	EventBusName string
}

// entryResult is a PutEventsResultEntry.
type entryResult struct {
	EventID      string `json:"EventId,omitempty"`
	ErrorCode    string `json:",omitempty"`
	ErrorMessage string `json:",omitempty"`
}

// putEvents answers PutEvents: each entry is taken or refused on its own, and what is taken goes to the rules after the
// answer, in the order of the request.
func (b *Bridge) putEvents(w http.ResponseWriter, r *http.Request) {
	var in struct{ Entries []entry }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		refuse(w, http.StatusBadRequest, "SerializationException", err.Error())
		return
	}
	if n := len(in.Entries); n < 1 || n > entriesLimit {
		refuse(w, http.StatusBadRequest, "ValidationException",
			fmt.Sprintf("1 validation error detected: Value at 'entries' failed to satisfy constraint: Member must have length between 1 and %d", entriesLimit))
		return
	}
	var out struct {
		FailedEntryCount int
		Entries          []entryResult
	}
	var taken []arrival
	for _, e := range in.Entries {
		refused := b.refusal(e)
		if refused != nil {
			out.FailedEntryCount++
			out.Entries = append(out.Entries, *refused)
			continue
		}
		a := b.take(e, b.regionOf(r))
		taken = append(taken, a)
		out.Entries = append(out.Entries, entryResult{EventID: a.ID})
	}
	if len(taken) > 0 {
		b.work.start(func() {
			for _, a := range taken {
				if err := b.route(b.lifetime, a); err != nil {
					b.work.failed(fmt.Errorf("delivering event %s: %w", a.ID, err))
				}
			}
		})
	}
	answer(w, http.StatusOK, out)
}

// refusal is why EventBridge does not take an entry; nil: it does.
func (b *Bridge) refusal(e entry) *entryResult {
	for _, field := range []struct{ name, value string }{{"Source", e.Source}, {"DetailType", e.DetailType}, {"Detail", e.Detail}} {
		if field.value == "" {
			return &entryResult{ErrorCode: "InvalidArgument",
				ErrorMessage: fmt.Sprintf("Parameter %s is not valid. Reason: %s is a required argument.", field.name, field.name)}
		}
	}
	switch {
	case !isObject([]byte(e.Detail)):
		return &entryResult{ErrorCode: "MalformedDetail", ErrorMessage: "Detail is malformed."}
	case strings.HasPrefix(e.Source, "aws.") && !b.options.AllowAWSSources:
		return &entryResult{ErrorCode: "NotAuthorizedForSourceException", ErrorMessage: "Not authorized for the source."}
	}
	return nil
}

func (b *Bridge) take(entry entry, region string) arrival {
	e := b.newEvent(region)
	e.Source, e.DetailType, e.Detail = entry.Source, entry.DetailType, json.RawMessage(entry.Detail)
	e.Resources = append(e.Resources, entry.Resources...)
	if entry.Time != nil {
		whole, part := math.Modf(*entry.Time)
		e.Time = seconds(time.Unix(int64(whole), int64(part*1e9)))
	}
	bus := entry.EventBusName
	if bus == "" {
		bus = defaultBus
	}
	return arrive(e, bus)
}
