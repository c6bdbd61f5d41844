namespace Ublkback.Parallax.Containers;

/// <summary>That somebody wants to open a VDI in a pool.</summary>
/// <param name="Vdi">The VDI's name.</param>
/// <param name="ReplacesSilent">Whether a holder is replaced that does not answer, though it is not known to be dead.
/// Its guest loses the disk.</param>
/// <param name="Describe">Says who has it.</param>
/// <param name="Warn">Takes what people should know.</param>
internal sealed record RadosClaim(string Vdi, bool ReplacesSilent, Func<string> Describe, Action<string> Warn);
