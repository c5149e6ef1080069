package controlplane

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/castai/kops-spot/test/controlplane/protocol"
)

// kubeletLog is the fake kubelet's log, with one line of JSON for each event. Lines are written atomically, so a test
// can read the file at any time.
type kubeletLog struct {
	mu   sync.Mutex
	file *os.File
}

func newKubeletLog(name string) (*kubeletLog, error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the kubelet's record: %w", err)
	}
	return &kubeletLog{file: file}, nil
}

// add records an event of a pod. Each pod's goroutine calls it, so the lines of one pod are in order.
func (l *kubeletLog) add(pod *corev1.Pod, event protocol.KubeletEvent, grace int64) error {
	line, err := json.Marshal(protocol.KubeletRecord{
		Time:      time.Now(),
		Node:      pod.Spec.NodeName,
		Namespace: pod.Namespace,
		Pod:       pod.Name,
		UID:       string(pod.UID),
		Event:     event,
		Grace:     grace,
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err = l.file.Write(append(line, '\n'))
	return err
}

func (l *kubeletLog) close() { l.file.Close() }
