using Ublkback.Linux.Workers;

namespace Ublkback.Tests.Linux;

/// <summary>Work that only counts its turns.</summary>
internal sealed class IdleWork : IWork
{
    public int Turns { get; private set; }

    public bool IsScheduled { get; set; }

    public void Run() => Turns++;
}
