// Command etcdload puts a load on an etcd cluster with etcd's own Go client and prints what came
// of it as one line of JSON. It connects to the leader, as a client that wants the best figures does.
//
// Build: GO111MODULE=off GOPATH=/usr/share/gocode go build -o etcdload ./benchmarks/etcdload
// (Debian: golang, golang-etcd-server-dev).
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	mathrand "math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/clientv3"
)

const messageBytes = 128 << 20

type result struct {
	OpsPerS    float64 `json:"ops_per_s"`
	MBPerS     float64 `json:"mb_per_s"`
	P50        int64   `json:"p50_us"`
	P99        int64   `json:"p99_us"`
	Max        int64   `json:"max_us"`
	Errors     int     `json:"errors"`
	FirstError string  `json:"first_error,omitempty"`
	Operations int     `json:"operations"`
	CPU        float64 `json:"generator_cpu_us_per_op"`
}

type counts struct {
	latencies  []time.Duration
	errors     int
	firstError string
}

func connect(endpoints []string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:          endpoints,
		DialTimeout:        5 * time.Second,
		MaxCallSendMsgSize: messageBytes,
		MaxCallRecvMsgSize: messageBytes,
	})
}

// leader returns the endpoint that leads.
func leader(endpoints []string) (string, error) {
	client, err := connect(endpoints)
	if err != nil {
		return "", err
	}
	defer client.Close()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		for _, endpoint := range endpoints {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			status, err := client.Status(ctx, endpoint)
			cancel()
			if err == nil && status.Leader != 0 && status.Leader == status.Header.MemberId {
				return endpoint, nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "", fmt.Errorf("no leader among %v", endpoints)
}

func cpu() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func main() {
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "host:port,host:port")
	clients := flag.Int("clients", 8, "connections")
	outstanding := flag.Int("outstanding", 8, "requests on their way on each connection")
	size := flag.Int("size", 100, "bytes per value")
	reads := flag.Float64("reads", 0, "share of linearizable reads")
	seconds := flag.Float64("seconds", 5, "how long is measured")
	warmup := flag.Float64("warmup", 0.5, "seconds before")
	keys := flag.Int("keys", 1024, "keys per connection")
	flag.Parse()

	at, err := leader(strings.Split(*endpoints, ","))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	value := make([]byte, *size)
	if _, err := rand.Read(value); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	text := string(value)
	connections := make([]*clientv3.Client, *clients)
	var made sync.WaitGroup
	for number := range connections {
		if connections[number], err = connect([]string{at}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if *reads > 0 {
			made.Add(1)
			go func(number int) {
				defer made.Done()
				for key := 0; key < *keys; key++ {
					name := fmt.Sprintf("%d-%d", number, key)
					if _, err := connections[number].Put(context.Background(), name, text); err != nil {
						fmt.Fprintln(os.Stderr, err)
						os.Exit(1)
					}
				}
			}(number)
		}
	}
	made.Wait()

	begin := time.Now().Add(time.Duration(*warmup * float64(time.Second)))
	end := begin.Add(time.Duration(*seconds * float64(time.Second)))
	all := make([]counts, *clients**outstanding)
	var cpuAtBegin time.Duration
	time.AfterFunc(time.Until(begin), func() { cpuAtBegin = cpu() })
	var done sync.WaitGroup
	for number := range all {
		done.Add(1)
		go func(number int) {
			defer done.Done()
			client := connections[number%*clients]
			mine := &all[number]
			dice := mathrand.New(mathrand.NewSource(int64(number)))
			for {
				from := time.Now()
				if !from.Before(end) {
					return
				}
				name := fmt.Sprintf("%d-%d", number%*clients, dice.Intn(*keys))
				var err error
				if *reads > 0 && dice.Float64() < *reads {
					_, err = client.Get(context.Background(), name)
				} else {
					_, err = client.Put(context.Background(), name, text)
				}
				now := time.Now()
				if err != nil {
					mine.errors++
					mine.firstError = err.Error()
				} else if !now.Before(begin) && now.Before(end) {
					mine.latencies = append(mine.latencies, now.Sub(from))
				}
			}
		}(number)
	}
	done.Wait()
	spent := cpu() - cpuAtBegin

	var latencies []time.Duration
	answer := result{}
	for _, each := range all {
		latencies = append(latencies, each.latencies...)
		answer.Errors += each.errors
		if answer.FirstError == "" {
			answer.FirstError = each.firstError
		}
	}
	sort.Slice(latencies, func(a, b int) bool { return latencies[a] < latencies[b] })
	answer.Operations = len(latencies)
	if count := len(latencies); count > 0 {
		answer.P50 = latencies[count/2].Microseconds()
		answer.P99 = latencies[count*99/100].Microseconds()
		answer.Max = latencies[count-1].Microseconds()
		answer.CPU = float64(spent.Microseconds()) / float64(count)
	}
	answer.OpsPerS = float64(len(latencies)) / *seconds
	answer.MBPerS = answer.OpsPerS * float64(*size) / 1e6
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		os.Exit(1)
	}
}
