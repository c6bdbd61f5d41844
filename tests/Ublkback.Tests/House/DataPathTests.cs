using NUnit.Framework;

namespace Ublkback.Tests.House;

/// <summary>What every request passes neither blocks a worker nor allocates for a request.</summary>
public sealed class DataPathTests
{
    // Requests allocate here: new and compressed clusters, discards and commits of qcow2, writes of a part of a
    // Parallax block, and caches that have to read.
    private const int MaxOnPath = 7;

    [Test]
    public void The_data_path_neither_blocks_nor_allocates()
    {
        List<string> faults = [];
        int files = 0, offPath = 0, completed = 0, onPath = 0;
        foreach (DataPathSearch search in DataPathSearch.ModelsOfTree().Select(model => new DataPathSearch(model)))
        {
            faults.AddRange(search.FindFaults().Select(fault => $"{search.File}:{fault}"));
            files++;
            offPath += search.Excuses.OffPath;
            completed += search.Excuses.Completed;
            onPath += search.Excuses.OnPath;
        }

        TestContext.Out.WriteLine(
            $"{files} files of the data path; off the path {offPath}, completed {completed}, on the path {onPath}");
        Assert.That(faults, Is.Empty, () => string.Join('\n', faults));
        Assert.That(onPath, Is.LessThanOrEqualTo(MaxOnPath), "places where requests allocate");
    }

    // Each line that ends with "// !" is a fault, and no other one is.
    [Test]
    public void Blocking_and_allocating_calls_are_found_under_any_name()
    {
        var compilation = SourceGraph.Tree.CompileText(Sample);
        Assert.That(
            compilation.GetDiagnostics().Where(d => d.Severity == Microsoft.CodeAnalysis.DiagnosticSeverity.Error),
            Is.Empty);
        var found = new DataPathSearch(compilation.GetSemanticModel(compilation.SyntaxTrees[0])).FindFaults();
        int[] expected =
        [
            .. Sample.Split('\n').Index().Where(line => line.Item.EndsWith("// !", StringComparison.Ordinal))
                .Select(line => line.Index + 1),
        ];
        Assert.That(
            found.Select(fault => int.Parse(fault.Split(':')[0], null)).Distinct().Order(), Is.EqualTo(expected),
            () => string.Join('\n', found));
    }

    private const string Sample = """
        using static System.Threading.Thread;
        using Files = System.IO.File;
        using System.Net.Sockets;
        class Sample(Task<int> task, ValueTask<int> value, Lock gate, object o, Stream stream, Socket socket)
        {
            readonly byte[] _memory = new byte[10];
            readonly Stack<Sample> _free = new();
            readonly Action<string> _warn = new(text => o.Equals(text));
            readonly Func<object> _factory = () => new object(); // !
            Sample() : this(null!, default, null!, null!, null!, null!) => _memory = new byte[20];
            void Wait()
            {
                task.GetAwaiter().GetResult(); // !
                task.ConfigureAwait(false).GetAwaiter().GetResult(); // !
                value.GetAwaiter().GetResult(); // completed: it is
                _ = task.Result; // !
                _ = value.Result; // !
                task.Wait (5); // !
                task // on two lines
                    .Wait(); // !
                Task.WaitAll(task); // !
                new ManualResetEvent(false).WaitOne(); // !
                CurrentThread.Join(); // !
                Sleep(1); // !
                System.Threading.SpinWait.SpinUntil(() => true); // !
                using (gate.EnterScope()) { } // !
                lock // !
                    (o) { }
                Monitor.Enter(o); // !
                new ReaderWriterLockSlim().EnterReadLock(); // !
                new SemaphoreSlim(1).Wait(); // !
                Files.Exists("x"); // !
                System.IO.Directory.Exists("x"); // !
                new FileStream("x", FileMode.Open).Flush(); // !
                RandomAccess.GetLength(null!); // !
                socket.Receive(_memory); // !
                stream.Read(_memory, 0, 1); // !
                stream.Flush(); // !
                System.Console.Out.Flush(); // !
                System.Diagnostics.Process.Start("x"); // !
                Func<int, bool> later = task.Wait; // !
            }
            void Allocate(int n)
            {
                _ = new byte[n]; // !
                _ = new[] { n }; // !
                List<int> list = new(); // !
                list = []; // !
                int[] none = [];
                Span<int> few = [n, n];
                Span<byte> bytes = stackalloc byte[8];
                string text = $"{n}"; // !
                text += "x"; // !
                text = n + "x"; // !
                text = "one" + "two";
                text = string.Join(',', list); // !
                text = n.ToString(); // !
                _ = list.Count(x => x > 1); // !
                _ = from x in list select x; // !
                _ = list.ToArray(); // !
                _ = nameof(Files.Exists);
                task.ContinueWith(_ => { }); // !
                Task.Factory.StartNew(() => { }); // !
                Task.Run(Wait); // !
                ThreadPool.QueueUserWorkItem(_ => { }); // !
                Sample sample = _free.TryPop(out Sample? free) ? free : new Sample();
                _warn($"{n}");
                if (n > 1) throw new InvalidOperationException($"{n}");
                _ = new object(); // off the path: an excuse
                // off the path: the next line
                _ = new object();
                _ = new object(); // completed: no result // !
                _ = n; // off the path: nothing // !
            }
            void Later() // on the path: known
            {
                _ = new object();
                Sleep(1); // !
            }
            async Task WaitAsync() => await task; // !
            async Task EndAsync() // off the path: the end
            {
                await Task.Delay(1);
                _ = new object();
            }
        }
        """;
}
