using System.Collections.Concurrent;

namespace Ublkback.Linux.Workers;

/// <summary>One object for each worker that asks, made by that worker when it first does.</summary>
public sealed class PerWorker<T>(Func<T> make)
    where T : class
{
    private readonly ConcurrentDictionary<Worker, T> _objects = new();

    /// <summary>The current worker's object.</summary>
    public T Current =>
        _objects.TryGetValue(Worker.Current, out T? known) ? known : _objects.GetOrAdd(Worker.Current, make());

    /// <summary>Forgets the object of a worker that ends. Any thread.</summary>
    public void Forget(Worker worker) => _objects.TryRemove(worker, out _);
}
