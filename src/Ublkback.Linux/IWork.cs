namespace Ublkback.Linux;

/// <summary>Something that has turns on a worker, one among many: it does a bounded amount of work in each.</summary>
public interface IWork
{
    /// <summary>Whether it waits for its turn. Kept by the worker.</summary>
    bool IsScheduled { get; set; }

    /// <summary>Takes one turn, on the worker.</summary>
    void Run();
}
